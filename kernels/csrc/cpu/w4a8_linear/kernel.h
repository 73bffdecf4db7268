// The two phases of the layer, for any instruction set.
//
// An instruction set gives a structure `Isa` with
//   chunk(from, inverse, to, stride)   quantises 32 floats to [8, 4], `stride` bytes apart, and returns the sums
//                                      of k % 4 < 2 and of the others
//   largest(from, count)               the bits of the largest magnitude, in which NaN comes last
//   kLanes                             floats of a vector
//   offset(sums)                       what Tile::offsets takes of the sums of a span
//   panels(rows)                       how many panels it takes at once
//   products<rows, panels>(tile, ...)  adds the products of panels to [panels, rows, kPanelWidth] sums
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

// The weights of a panel, what turns its integer sums into floats, and how far the next panel is.
struct Panel {
  const uint8_t* weight;
  const float* scale;
  int64_t weight_stride, scale_stride;
  int64_t groups, spans_per_group, span;
};

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
      tile.offsets[span * tile.stored + row] = Isa::offset(sums);
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

// Bias, and what the zero points of the weights take off, for [kPanels, kRows, kPanelWidth] sums.
template <class Isa, int kRows, int kPanels>
LEANMARK_INLINE void start(const Plan& p, const Tile& tile, const Panel& panel, int64_t index, float* sums) {
  constexpr int kLanes = Isa::kLanes, kVectors = kPanelWidth / kLanes;
  using V = Vector<kLanes>;
  for (int i = 0; i < kPanels * kRows; ++i) {
    const int64_t column = (index + i / kRows) * kPanelWidth, left = p.columns - column;
    float* to = sums + i * kPanelWidth;
    std::memset(to, 0, kPanelWidth * sizeof(float));
    if (p.bias) std::memcpy(to, p.bias + column, std::min<int64_t>(kPanelWidth, left) * sizeof(float));
  }
  if (!p.zero) return;
  V totals[kPanels * kVectors][kRows] = {};
  const float *x = tile.sums, *zero = p.zero + index * panel.scale_stride;
  for (int64_t group = 0; group < panel.groups; ++group, zero += kPanelWidth) {
    for (int64_t span = 0; span < panel.spans_per_group; ++span, x += kRows) {
      #pragma GCC unroll 16
      for (int v = 0; v < kPanels * kVectors; ++v) {
        const V zeros = load<V>(zero + v / kVectors * panel.scale_stride + v % kVectors * kLanes);
        #pragma GCC unroll 4
        for (int r = 0; r < kRows; ++r) totals[v][r] += x[r] * zeros;
      }
    }
  }
  #pragma GCC unroll 16
  for (int v = 0; v < kPanels * kVectors; ++v) {
    #pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      float* to = sums + (v / kVectors * kRows + r) * kPanelWidth + v % kVectors * kLanes;
      store(load<V>(to) - totals[v][r], to);
    }
  }
}

template <class Isa, int kRows, int kPanels>
LEANMARK_INLINE void tile_times_panels(const Plan& p, const Tile& tile, int64_t index) {
  constexpr int kSums = kRows * kPanelWidth;
  alignas(64) float sums[kPanels * kSums];
  const int64_t groups = p.depth / p.group, depth = p.depth * (kPanelWidth / 2), scales = groups * kPanelWidth;
  const Panel panel{p.weight + index * depth, p.scale + index * scales, depth, scales, groups, p.group / p.span, p.span};
  start<Isa, kRows, kPanels>(p, tile, panel, index, sums);
  Isa::template products<kRows, kPanels>(tile, panel, sums);
  if (p.relu) {
    for (float& sum : sums) sum = sum < 0.0f ? 0.0f : sum;
  }
  for (int i = 0; i < kPanels; ++i) {
    const int64_t column = (index + i) * kPanelWidth, columns = std::min<int64_t>(kPanelWidth, p.columns - column);
    for (int64_t r = 0; r < tile.rows; ++r) {
      float* to = p.output + (tile.row + r) * p.columns + column;
      std::memcpy(to, sums + i * kSums + r * kPanelWidth, columns * sizeof(float));
    }
  }
}

// Panels [index, end), as many at once as the registers hold.
template <class Isa, int kRows>
LEANMARK_INLINE void tile_times_all(const Plan& p, const Tile& tile, int64_t index, int64_t end) {
  constexpr int kPanels = Isa::panels(kRows);
  for (; index + kPanels <= end; index += kPanels) tile_times_panels<Isa, kRows, kPanels>(p, tile, index);
  if constexpr (kPanels > 1) {
    for (; index < end; ++index) tile_times_panels<Isa, kRows, 1>(p, tile, index);
  }
}

template <class Isa>
LEANMARK_INLINE void multiply(const Plan& p, int64_t begin, int64_t end) {
  for (int64_t item = begin, count; item < end; item += count) {
    const int64_t index = item % p.panels;
    count = std::min<int64_t>({Isa::panels(1), end - item, p.panels - index});
    const int64_t first = item / p.panels * p.block_tiles, last = std::min(p.tiles, first + p.block_tiles);
    for (int64_t t = first; t < last; ++t) {
      const Tile tile = tile_of(p, t);
      if (tile.stored == 1) {
        tile_times_all<Isa, 1>(p, tile, index, index + count);
      } else if (tile.stored == 2) {
        tile_times_all<Isa, 2>(p, tile, index, index + count);
      } else {
        tile_times_all<Isa, 4>(p, tile, index, index + count);
      }
    }
  }
}

}  // namespace leanmark::w4a8_linear
