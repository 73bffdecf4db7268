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

// Rows that are summed together, slab by slab.
constexpr int64_t kRows = 16;
constexpr int64_t kMostEntries = kRows * kIndices;  // of theirs, in one slab

// Entries [first, last).
struct Entries {
  int64_t first, last;

  // Those of groups [begin, end) of a slab. Whatever a caller's `starts` hold, they are among these.
  LEANMARK_INLINE Entries of(const Plan& p, int64_t slab, int64_t begin, int64_t end) const {
    const int32_t* starts = p.weights.starts + slab * p.weights.groups;
    const int64_t from = std::clamp<int64_t>(starts[begin], first, last);
    return {from, std::clamp<int64_t>(starts[end], from, last)};
  }
};

// Where entries find their input in a tile, looked up one by one. AVX-512 has its own.
template <int kLanes>
struct Offsets {
  const uint8_t* indices;
  const int32_t* table;

  LEANMARK_INLINE Offsets(const Plan& p, Entries) : indices(p.weights.indices), table(p.offsets) {}
  LEANMARK_INLINE int64_t operator[](int64_t entry) const { return table[indices[entry]]; }

  // One load for four: they are scarce.
  struct Four {
    uint32_t indices;
    const int32_t* table;

    template <int kIndex>
    LEANMARK_INLINE int64_t at() const {
      return table[indices >> 8 * (__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? kIndex : 3 - kIndex) & 255];
    }
  };
  LEANMARK_INLINE Four four(int64_t entry) const {
    Four four{0, table};
    std::memcpy(&four.indices, indices + entry, sizeof(four.indices));
    return four;
  }
};

// As they were looked up once, for many tiles: two loads for four.
struct FoundOffsets {
  const int32_t* found;

  LEANMARK_INLINE int64_t operator[](int64_t entry) const { return found[entry]; }

  struct Four {
    uint64_t pairs[2];

    template <int kIndex>
    LEANMARK_INLINE int64_t at() const {
      constexpr int kShift = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? 32 * (kIndex % 2) : 32 * (1 - kIndex % 2);
      return pairs[kIndex / 2] >> kShift & 0xffffffff;
    }
  };
  LEANMARK_INLINE Four four(int64_t entry) const {
    Four four;
    std::memcpy(four.pairs, found + entry, sizeof(four.pairs));
    return four;
  }
};

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

  template <class AnyOffsets>
  LEANMARK_INLINE void add_all(const float* values, const AnyOffsets& offsets, Entries e, const float* x) {
    int64_t i = e.first;
    for (; i + 4 <= e.last; i += 4) {
      const auto four = offsets.four(i);
      const float* at = values + i * kBlock;
      add<0>(at, x + four.template at<0>());
      add<1 % kChains>(at + kBlock, x + four.template at<1>());
      add<2 % kChains>(at + 2 * kBlock, x + four.template at<2>());
      add<3 % kChains>(at + 3 * kBlock, x + four.template at<3>());
    }
    for (; i < e.last; ++i) add<0>(values + i * kBlock, x + offsets[i]);
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
template <int kLanes, int kBlock, int kVectors, class AnyOffsets>
LEANMARK_TARGET LEANMARK_OUTLINE void add_groups(const Plan& p, const Target& t, const AnyOffsets& offsets,
                                                 Entries all, int64_t slab, int64_t begin, int64_t end,
                                                 int64_t column, int64_t end_column) {
  const int64_t tile = p.tile;
  for (int64_t group = begin; group < end; ++group) {
    const Entries e = all.of(p, slab, group, group + 1);
    float* sums = t.sums + (group - begin) * kBlock * tile;
    for (int64_t c = column; c < end_column; c += kVectors * kLanes) {
      Sums<kLanes, kBlock, kVectors> sum;
      sum.start(sums + c, tile, t.fresh);
      sum.add_all(p.weights.values, offsets, e, t.packed + c);
      if (t.output) {
        finish_rows<kLanes, kBlock, kVectors>(t, sum, group * kBlock, p.weights.rows - group * kBlock, c);
      } else {
        sum.store_to(sums + c, tile);
      }
    }
  }
}

// In steps of `vectors` vectors, at most kVectors.
template <int kLanes, int kBlock, int kVectors, class AnyOffsets>
LEANMARK_INLINE void add_columns(const Plan& p, const Target& t, const AnyOffsets& offsets, Entries all,
                                 int64_t slab, int64_t begin, int64_t end, int64_t column, int64_t end_column,
                                 int64_t vectors) {
  if constexpr (kVectors > 1) {
    if (vectors < kVectors) {
      return add_columns<kLanes, kBlock, kVectors - 1>(p, t, offsets, all, slab, begin, end, column, end_column,
                                                       vectors);
    }
  }
  add_groups<kLanes, kBlock, kVectors>(p, t, offsets, all, slab, begin, end, column, end_column);
}

// All columns, in steps that differ by at most one vector: few vectors at once keep the multipliers waiting.
template <int kLanes, int kBlock, class AnyOffsets>
LEANMARK_INLINE void add_tile(const Plan& p, const Target& t, const AnyOffsets& offsets, Entries all, int64_t slab,
                              int64_t begin, int64_t end) {
  constexpr int kMost = most_vectors<kLanes, kBlock>();
  const int64_t vectors = p.tile / kLanes, steps = (vectors + kMost - 1) / kMost;
  const int64_t less = vectors / steps, wide = vectors % steps * (less + 1) * kLanes;
  if (wide > 0) add_columns<kLanes, kBlock, kMost>(p, t, offsets, all, slab, begin, end, 0, wide, less + 1);
  add_columns<kLanes, kBlock, kMost>(p, t, offsets, all, slab, begin, end, wide, p.tile, less);
}

template <int kLanes, int kBlock>
LEANMARK_INLINE void add_slab(const Plan& p, const Target& t, int64_t slab, int64_t begin, int64_t end) {
  Entries all = Entries{0, p.weights.entries}.of(p, slab, begin, end);
  all.last = std::min(all.last, all.first + kMostEntries / kBlock);
  if constexpr (kLanes < 16) {
    if (p.found) return add_tile<kLanes, kBlock>(p, t, FoundOffsets{p.found}, all, slab, begin, end);
  }
  add_tile<kLanes, kBlock>(p, t, Offsets<kLanes>(p, all), all, slab, begin, end);
}

}  // namespace leanmark::sparse
