// One linear layer with 4-bit weights and activations that are quantised to 8 bits on the way in.
#pragma once

#include <cstdint>

#include "cpu/capability.h"

namespace leanmark::w4a8_linear {

constexpr int kTileRows = 4;
constexpr int kStep = 8;  // depth that one 64-byte line of a panel covers

// Depth over which products are added up in 16 bits. With the zero point 8 taken off, their sum is at most
// 8 * 127 * 32 = 32512 in magnitude; whatever wraps around on the way there wraps back.
constexpr int64_t span_for(int64_t group) { return group % 64 == 0 ? 64 : 32; }

struct Plan {
  const float* input;     // [rows, depth]
  const uint8_t* weight;  // [panels, depth / kStep, kPanelWidth, 4]: k in the low nibble, k + 4 in the high one
  const float* scale;     // [panels, groups, kPanelWidth]
  const float* zero;      // as scale, or null: scale * (zero point - 8)
  const float* bias;      // [columns], or null
  float* output;          // [rows, columns]
  int64_t rows, depth, columns, group;
  bool relu;

  int64_t span, spans;
  int64_t panels, tiles;
  int64_t block_tiles;  // tiles that stay in a core's own cache while panels pass by
  char* scratch;        // tiles, tile_bytes apart
  int64_t tile_bytes;
};

// Up to kTileRows rows of quantised activations. Three rows are stored as four, the last one of zeros.
struct Tile {
  int64_t row, rows, stored;
  int8_t* values;    // [depth / 4, stored, 4]
  float* scales;     // [spans, stored]
  int32_t* offsets;  // [spans, stored]: what the zero point 8 takes off, in the form of the instruction set
  float* sums;       // [spans, stored]: scale times the sum of the values
};

inline Tile tile_of(const Plan& p, int64_t index) {
  const int64_t row = index * kTileRows, left = p.rows - row;
  const int64_t rows = left < kTileRows ? left : kTileRows, stored = rows == 3 ? 4 : rows;
  char* at = p.scratch + index * p.tile_bytes;
  auto* values = reinterpret_cast<int8_t*>(at);
  auto* scales = reinterpret_cast<float*>(at + kTileRows * p.depth);
  auto* offsets = reinterpret_cast<int32_t*>(scales + kTileRows * p.spans);
  return {row, rows, stored, values, scales, offsets, reinterpret_cast<float*>(offsets + kTileRows * p.spans)};
}

struct Kernel {
  void (*quantize)(const Plan&, int64_t begin, int64_t end);  // tiles
  void (*multiply)(const Plan&, int64_t begin, int64_t end);  // items: blocks of tiles x panels
};

const Kernel& kernel_portable();
#if defined(__x86_64__)
const Kernel& kernel_avx2();
const Kernel& kernel_avx512vnni();
#endif

}  // namespace leanmark::w4a8_linear
