// Groups of sparse rows times one tile of the input, for any vector width.
#pragma once

#include <algorithm>
#include <cstring>

#include "cpu/sparse/plan.h"
#include "cpu/vector.h"

namespace leanmark::sparse {

// How many vectors of columns are summed at once: enough sums to keep the multipliers busy, few enough for the
// registers.
template <int kLanes, int kBlock>
constexpr int most_vectors() {
  if (kBlock == 1) return 8;
  return kLanes == 4 ? 2 : kLanes == 8 ? 3 : 5;
}

// The entries of one group of rows in one slab.
struct Entries {
  const float* values;
  const uint8_t* indices;
  int64_t count;
};

// The one that is kIndex-th in memory.
template <int kIndex>
LEANMARK_INLINE uint32_t byte(uint32_t four) {
  return four >> 8 * (__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? kIndex : 3 - kIndex) & 255;
}

template <int kLanes, int kBlock, int kVectors>
struct Sums {
  // Sums that are too few to hide the latency of an addition are kept several times.
  static constexpr int kWide = kBlock * kVectors;
  static constexpr int kChains = kWide >= 8 ? 1 : kWide >= 3 ? 2 : 4;

  using V = Vector<kLanes>;
  V sums[kChains][kBlock][kVectors];

  LEANMARK_INLINE void start(const float* from, int64_t stride, bool fresh) {
    #pragma GCC unroll 4
    for (int c = 0; c < kChains; ++c) {
      #pragma GCC unroll 4
      for (int r = 0; r < kBlock; ++r) {
        #pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) {
          sums[c][r][v] = c > 0 || fresh ? V{} : load<V>(from + r * stride + v * kLanes);
        }
      }
    }
  }

  template <int kChain>
  LEANMARK_INLINE void add(const float* values, const float* x) {
    asm("" : "+r"(x));  // one address for all columns, or the compiler would keep one for each
    if constexpr (kBlock == 1) {
      #pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) sums[kChain][0][v] += values[0] * load<V>(x + v * kLanes);
    } else {
      V xs[kVectors];
      #pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) xs[v] = load<V>(x + v * kLanes);
      #pragma GCC unroll 4
      for (int r = 0; r < kBlock; ++r) {
        const float value = values[r];
        #pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) sums[kChain][r][v] += value * xs[v];
      }
    }
  }

  LEANMARK_INLINE void add_all(const Entries& e, const float* x, const int32_t* offsets) {
    int64_t i = 0;
    if constexpr (kBlock == 1) {
      for (; i + 4 <= e.count; i += 4) {
        const float* values = e.values + i;
        uint32_t four;  // one load: they are scarce
        std::memcpy(&four, e.indices + i, sizeof(four));
        add<0>(values, x + offsets[byte<0>(four)]);
        add<1 % kChains>(values + 1, x + offsets[byte<1>(four)]);
        add<2 % kChains>(values + 2, x + offsets[byte<2>(four)]);
        add<3 % kChains>(values + 3, x + offsets[byte<3>(four)]);
      }
    } else if constexpr (kChains == 2) {
      for (; i + 2 <= e.count; i += 2) {
        add<0>(e.values + i * kBlock, x + offsets[e.indices[i]]);
        add<1>(e.values + (i + 1) * kBlock, x + offsets[e.indices[i + 1]]);
      }
    }
    for (; i < e.count; ++i) add<0>(e.values + i * kBlock, x + offsets[e.indices[i]]);
  }

  LEANMARK_INLINE V total(int row, int vector) const {
    V total = sums[0][row][vector];
    #pragma GCC unroll 4
    for (int c = 1; c < kChains; ++c) total += sums[c][row][vector];
    return total;
  }

  LEANMARK_INLINE void store_to(float* to, int64_t stride) const {
    #pragma GCC unroll 4
    for (int r = 0; r < kBlock; ++r) {
      #pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) store(total(r, v), to + r * stride + v * kLanes);
    }
  }
};

// Where a slab's sums go: to the tile's sums, or finished to the output, [rows, plane], if the slab is the last
// one and the tile's columns lie together there.
struct Target {
  const float* packed;  // the slab's tile of the input
  float* sums;          // [rows, tile], from the first row on that is asked for
  bool fresh;           // they start from zero
  float* output;        // of row 0 and the tile's column 0, or null
  const float* residual;
  const float* bias;
  float floor;
  int64_t plane;
};

template <int kLanes, int kBlock, int kVectors, class Sum>
LEANMARK_INLINE void finish_rows(const Target& t, Sum& sum, int64_t row, int64_t rows, int64_t column) {
  using V = Vector<kLanes>;
  #pragma GCC unroll 4
  for (int r = 0; r < kBlock; ++r) {
    if (r >= rows) return;
    const int64_t to = (row + r) * t.plane + column;
    const float bias = t.bias ? t.bias[row + r] : 0.0f;
    const float* residual = t.residual ? t.residual + to : nullptr;
    float* output = t.output + to;
    const V lowest = V{} + t.floor;
    #pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      V value = sum.total(r, v) + bias;
      if (residual) value += load<V>(residual + v * kLanes);
      store(value < lowest ? lowest : value, output + v * kLanes);
    }
  }
}

// Groups [begin, end) in one slab, for columns [column, end_column) in steps of kVectors vectors.
template <int kLanes, int kBlock, int kVectors>
LEANMARK_TARGET LEANMARK_OUTLINE void add_groups(const Plan& p, const Target& t, int64_t slab, int64_t begin,
                                                 int64_t end, int64_t column, int64_t end_column) {
  const int32_t* starts = p.weights.starts + slab * p.weights.groups;
  const float* values = p.weights.values;
  const uint8_t* indices = p.weights.indices;
  const int64_t entries = p.weights.entries, tile = p.tile;
  for (int64_t group = begin; group < end; ++group) {
    // Whatever a caller's `starts` hold, no memory but that of the entries is read.
    const int64_t first = std::max<int64_t>(0, starts[group]);
    const int64_t last = std::min<int64_t>(entries, starts[group + 1]);
    const Entries e{values + first * kBlock, indices + first, last - first};
    float* sums = t.sums + (group - begin) * kBlock * tile;
    for (int64_t c = column; c < end_column; c += kVectors * kLanes) {
      Sums<kLanes, kBlock, kVectors> sum;
      sum.start(sums + c, tile, t.fresh);
      sum.add_all(e, t.packed + c, p.offsets);
      if (t.output) {
        finish_rows<kLanes, kBlock, kVectors>(t, sum, group * kBlock, p.weights.rows - group * kBlock, c);
      } else {
        sum.store_to(sums + c, tile);
      }
    }
  }
}

// In steps of `vectors` vectors, at most kVectors.
template <int kLanes, int kBlock, int kVectors>
LEANMARK_INLINE void add_columns(const Plan& p, const Target& t, int64_t slab, int64_t begin, int64_t end,
                                 int64_t column, int64_t end_column, int64_t vectors) {
  if constexpr (kVectors > 1) {
    if (vectors < kVectors) {
      return add_columns<kLanes, kBlock, kVectors - 1>(p, t, slab, begin, end, column, end_column, vectors);
    }
  }
  add_groups<kLanes, kBlock, kVectors>(p, t, slab, begin, end, column, end_column);
}

// All columns, in steps that differ by at most one vector: few vectors at once keep the multipliers waiting.
template <int kLanes, int kBlock>
LEANMARK_INLINE void add_slab(const Plan& p, const Target& t, int64_t slab, int64_t begin, int64_t end) {
  constexpr int kMost = most_vectors<kLanes, kBlock>();
  const int64_t vectors = p.tile / kLanes, steps = (vectors + kMost - 1) / kMost;
  const int64_t less = vectors / steps, wide = vectors % steps * (less + 1) * kLanes;
  if (wide > 0) add_columns<kLanes, kBlock, kMost>(p, t, slab, begin, end, 0, wide, less + 1);
  add_columns<kLanes, kBlock, kMost>(p, t, slab, begin, end, wide, p.tile, less);
}

}  // namespace leanmark::sparse
