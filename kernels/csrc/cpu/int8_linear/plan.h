// One linear layer in 8-bit integers, exact: no product or sum saturates, whatever the numbers are.
//
// AVX2 multiplies 8-bit integers by vpmaddubsw, whose sums of two products saturate at 16 bits. A tile of rows
// therefore takes the fastest arithmetic that its own numbers and the weights make exact. Rows are shifted to
// start at 0, so that what counts is their range; what the shift adds is taken off again by the column sums.
#pragma once

#include <cstdint>

#include "cpu/capability.h"

namespace leanmark::int8_linear {

constexpr int kTileRows = 4;
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

struct Plan {
  const void* input;      // [rows, depth] of int8 or, if is_unsigned, uint8
  const int8_t* weight;   // [panels][padded_depth / 4, kPanelWidth, 4], each with a Footer
  const float* scale;     // [columns]
  const float* input_scale;  // [rows], input_scale_step 1, or one value, input_scale_step 0
  int64_t input_scale_step;
  const float* bias;      // [columns], or null
  float* output;          // [rows, columns]
  int64_t rows, depth, columns, zero_point;
  bool is_unsigned, relu;

  int64_t padded_depth, panels, panel_bytes;
  int64_t largest_pair, largest_quad;  // of all panels
  int64_t tiles, block_tiles;
  char* scratch;  // tiles, tile_bytes apart
  int64_t tile_bytes;
};

// What a packed tile begins with; its rows follow, [padded_depth / 4, stored, 4], in 8 or 16 bits. In 16 bits
// a group of four is in the order 0, 2, 1, 3.
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
  char* at = p.scratch + index * p.tile_bytes;
  return {row, rows, stored, reinterpret_cast<Header*>(at), at + sizeof(Header)};
}

struct Kernel {
  void (*pack)(const Plan&, int64_t begin, int64_t end);      // tiles
  void (*multiply)(const Plan&, int64_t begin, int64_t end);  // items: blocks of tiles x panels
};

const Kernel& kernel_portable();
#if defined(__x86_64__)
const Kernel& kernel_avx2();
#endif

}  // namespace leanmark::int8_linear
