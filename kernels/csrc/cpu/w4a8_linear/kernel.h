// The two phases of the layer, for any instruction set.
//
// An instruction set gives a structure `Isa` with
//   chunk(from, inverse, to, stride)   quantises 32 floats to [8, 4], `stride` bytes apart, and returns the sums
//                                      of k % 4 < 2 and of the others
//   largest(from, count)               the bits of the largest magnitude, in which NaN comes last
//   products<rows>(tile, ...)          adds a panel's products to [rows, kPanelWidth] sums
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "cpu/panels.h"
#include "cpu/vector.h"
#include "cpu/w4a8_linear/plan.h"

namespace leanmark::w4a8_linear {

constexpr int kChunk = 32;
constexpr uint32_t kInfinityBits = 0x7f800000u;
constexpr float kSmallest = 0x1p-119f;  // below it, 127 / largest would overflow

struct PairSums {
  int32_t low, high;
};

// The weights of a panel, and what turns its integer sums into floats.
struct Panel {
  const uint8_t* weight;
  const float* scale;
  int64_t groups, spans_per_group, span;
};

inline int32_t both_offsets(const PairSums& sums) {
  const auto low = static_cast<uint16_t>(-8 * sums.low), high = static_cast<uint16_t>(-8 * sums.high);
  return static_cast<int32_t>(static_cast<uint32_t>(high) << 16 | low);
}

// The scale of a group, and the factor that quantises it.
struct Factors {
  float scale, inverse;
  explicit Factors(uint32_t largest_bits) : scale(0.0f), inverse(0.0f) {
    float largest;
    std::memcpy(&largest, &largest_bits, sizeof(largest));
    if (largest_bits >= kInfinityBits) {
      scale = std::numeric_limits<float>::quiet_NaN();
    } else if (largest >= kSmallest) {
      scale = largest / 127.0f;
      inverse = 127.0f / largest;
    }
  }
};

template <class Isa>
LEANMARK_INLINE void quantize_row(const Plan& p, const Tile& tile, int64_t row) {
  const float* from = p.input + (tile.row + row) * p.depth;
  const int64_t stride = 4 * tile.stored;
  int8_t* to = tile.values + 4 * row;
  for (int64_t k = 0, span = 0; k < p.depth;) {
    const Factors factors(Isa::largest(from + k, p.group));
    for (const int64_t end = k + p.group; k < end; ++span) {
      PairSums sums{0, 0};
      for (const int64_t stop = k + p.span; k < stop; k += kChunk) {
        const PairSums more = Isa::chunk(from + k, factors.inverse, to + k / 4 * stride, stride);
        sums.low += more.low;
        sums.high += more.high;
      }
      tile.scales[span * tile.stored + row] = factors.scale;
      tile.offsets[span * tile.stored + row] = both_offsets(sums);
      tile.sums[span * tile.stored + row] = factors.scale * static_cast<float>(sums.low + sums.high);
    }
  }
}

template <class Isa>
LEANMARK_INLINE void quantize(const Plan& p, int64_t begin, int64_t end) {
  for (int64_t index = begin; index < end; ++index) {
    const Tile tile = tile_of(p, index);
    if (tile.stored > tile.rows) std::memset(p.scratch + index * p.tile_bytes, 0, p.tile_bytes);
    for (int64_t row = 0; row < tile.rows; ++row) quantize_row<Isa>(p, tile, row);
  }
}

// Bias, and what the zero points of the weights take off.
template <int kRows>
LEANMARK_INLINE void start(const Tile& tile, const Panel& panel, const float* zero, const float* bias,
                           float* sums) {
  for (int r = 0; r < kRows; ++r) std::memcpy(sums + r * kPanelWidth, bias, kPanelWidth * sizeof(float));
  if (!zero) return;
  const float* x = tile.sums;
  for (int64_t group = 0; group < panel.groups; ++group, zero += kPanelWidth) {
    for (int64_t span = 0; span < panel.spans_per_group; ++span, x += kRows) {
      for (int r = 0; r < kRows; ++r) {
        for (int c = 0; c < kPanelWidth; ++c) sums[r * kPanelWidth + c] -= x[r] * zero[c];
      }
    }
  }
}

template <class Isa, int kRows>
LEANMARK_INLINE void tile_times_panel(const Plan& p, const Tile& tile, const Panel& panel, const float* zero,
                                      const float* bias, float* to, int64_t columns) {
  alignas(64) float sums[kRows * kPanelWidth];
  start<kRows>(tile, panel, zero, bias, sums);
  Isa::template products<kRows>(tile, panel, sums);
  if (p.relu) {
    for (float& sum : sums) sum = sum < 0.0f ? 0.0f : sum;
  }
  for (int64_t r = 0; r < tile.rows; ++r) {
    std::memcpy(to + r * p.columns, sums + r * kPanelWidth, columns * sizeof(float));
  }
}

template <class Isa>
LEANMARK_INLINE void multiply(const Plan& p, int64_t begin, int64_t end) {
  const int64_t groups = p.depth / p.group;
  for (int64_t item = begin; item < end; ++item) {
    const int64_t index = item % p.panels, column = index * kPanelWidth;
    const int64_t columns = std::min<int64_t>(kPanelWidth, p.columns - column);
    const Panel panel{p.weight + index * p.depth * (kPanelWidth / 2), p.scale + index * groups * kPanelWidth,
                      groups, p.group / p.span, p.span};
    const float* zero = p.zero ? p.zero + index * groups * kPanelWidth : nullptr;
    float bias[kPanelWidth] = {};
    if (p.bias) std::memcpy(bias, p.bias + column, columns * sizeof(float));
    const int64_t first = item / p.panels * p.block_tiles, last = std::min(p.tiles, first + p.block_tiles);
    for (int64_t t = first; t < last; ++t) {
      const Tile tile = tile_of(p, t);
      float* to = p.output + tile.row * p.columns + column;
      if (tile.stored == 1) {
        tile_times_panel<Isa, 1>(p, tile, panel, zero, bias, to, columns);
      } else if (tile.stored == 2) {
        tile_times_panel<Isa, 2>(p, tile, panel, zero, bias, to, columns);
      } else {
        tile_times_panel<Isa, 4>(p, tile, panel, zero, bias, to, columns);
      }
    }
  }
}

}  // namespace leanmark::w4a8_linear
