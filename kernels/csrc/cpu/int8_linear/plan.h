// One product of 8-bit integers, exact: no product or sum saturates, whatever the numbers are. Its rows are those
// of a matrix, or the patches of images.
//
// AVX2 multiplies 8-bit integers by vpmaddubsw, whose sums of two products saturate at 16 bits. A tile of rows
// therefore takes the fastest arithmetic that its own numbers and the weights make exact. Rows are shifted to
// start at 0, so that what counts is their range; what the shift adds is taken off again by the column sums.
// VNNI adds four products to 32 bits at once; it needs the shift only to make the rows unsigned.
#pragma once

#include <cstdint>

#include "cpu/capability.h"

namespace leanmark::int8_linear {

constexpr int kTileRows = 4;  // of a kernel that goes by limits
constexpr int64_t kDepthStep = 8;
constexpr int64_t kDeepest = 65536;  // 255 * 128 * 65536 still fits 32 bits

// What follows the weights of a panel.
struct Footer {
  int32_t sums[16];  // of the weights of a column
  int32_t pair;      // the largest |sum| of one sign that a vpmaddubsw can meet: of k and k + 1
  int32_t quad;      // and two of them added up: of k, k + 1, k + 4 and k + 5
  int32_t unused[14];
};

enum class Arithmetic {
  kQuads,  // range * quad fits 16 bits: two vpmaddubsw before widening
  kPairs,  // range * pair does: one
  kWide,   // neither: 16-bit operands
};

// Where a row comes from, if not from a matrix: [kernel_height, kernel_width, channels] of an image in NHWC.
struct Patches {
  int64_t height, width, pixel;  // pixel: values from one to the next
  int64_t channels;              // of them, those of a group
  int64_t out_height, out_width;
  int64_t kernel_height, kernel_width, stride_y, stride_x, padding_y, padding_x, dilation_y, dilation_x;
};

struct Plan {
  const void* input;          // [rows, depth] of int8 or, if is_unsigned, uint8; of images with patches
  const Patches* patches;     // or null
  const int8_t* weight;       // [panels][padded_depth / 4, kPanelWidth, 4], each with a Footer
  const float* scale;         // [columns]
  const float* input_scale;   // [rows / rows_per_scale]
  int64_t rows_per_scale;
  const float* bias;          // [columns], or null
  float* output;              // [rows, columns], rows output_stride apart
  int64_t output_stride;
  int64_t rows, depth, columns, zero_point;
  bool is_unsigned, relu;

  int64_t padded_depth, panels, panel_bytes;
  int64_t largest_pair, largest_quad;  // of all panels, where the kernel asks for them
  int64_t tiles, block_tiles, tile_rows;
  char* scratch;  // packed tiles from first_tile on, tile_bytes apart
  int64_t first_tile, tile_bytes, row_bytes;
};

// What a packed tile begins with where the kernel goes by limits; its rows follow, [padded_depth / 4, stored, 4],
// in 8 or 16 bits. In 16 bits a group of four is in the order 0, 2, 1, 3.
struct alignas(64) Header {
  Arithmetic arithmetic;
  int32_t shift;  // what was taken off each value
};

struct Tile {
  int64_t row, rows, stored;  // three rows are stored as four
  Header* header;
  char* values;
};

inline Tile tile_of(const Plan& p, int64_t index) {
  const int64_t row = index * kTileRows, left = p.rows - row;
  const int64_t rows = left < kTileRows ? left : kTileRows, stored = rows == 1 ? 1 : kTileRows;
  char* at = p.scratch + (index - p.first_tile) * p.tile_bytes;
  return {row, rows, stored, reinterpret_cast<Header*>(at), at + sizeof(Header)};
}

struct Kernel {
  void (*pack)(const Plan&, int64_t begin, int64_t end);      // tiles
  void (*multiply)(const Plan&, int64_t begin, int64_t end);  // items: blocks of tiles x item_panels panels
  int64_t item_panels;
  int64_t most_rows;    // of a tile
  int64_t block_bytes;  // of packed rows that stay in a cache next to the panels in use
  // Whether the largest sums of the weights choose the arithmetic of a tile. Otherwise tiles are simply unsigned
  // rows in 8 bits, row_bytes apart, as even in number as possible.
  bool by_limits;
};

const Kernel& kernel_portable();
#if defined(__x86_64__)
const Kernel& kernel_avx2();
const Kernel& kernel_avx512vnni();
#endif

}  // namespace leanmark::int8_linear
