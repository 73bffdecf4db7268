// Rows times packed panels: the inner loop of every packed product.
//
// A panel holds kPanelWidth columns of the right-hand matrix, [depth][kPanelWidth], so that each step of the
// depth reads one contiguous stretch, whatever the vector width: packed weights fit every instruction set.
#pragma once

#include <algorithm>
#include <cstdint>

#include "cpu/vector.h"

namespace leanmark {

constexpr int kPanelWidth = 16;

// How a panel is stored, and how a vector of it becomes floats: row kRow of the kDepth rows that start at `at`.
struct Float32Panel {
  using Value = float;
  static constexpr int kDepth = 1;
  static constexpr int64_t rows(int64_t depth) { return depth; }

  template <int kLanes, int kRow>
  static LEANMARK_INLINE Vector<kLanes> read(const float* at) {
    return load<Vector<kLanes>>(at);
  }
};

struct Int8Panel {
  using Value = int8_t;
  static constexpr int kDepth = 1;
  static constexpr int64_t rows(int64_t depth) { return depth; }

  template <int kLanes, int kRow>
  static LEANMARK_INLINE Vector<kLanes> read(const int8_t* at) {
    Vector<kLanes, int32_t> wide;
#if defined(__x86_64__)
    if constexpr (kLanes > 4) {  // GCC 12 would convert lane by lane
      asm("vpmovsxbd %1, %0" : "=v"(wide) : "m"(*reinterpret_cast<const Vector<kLanes, int8_t>*>(at)));
      return __builtin_convertvector(wide, Vector<kLanes>);
    }
#endif
    for (int lane = 0; lane < kLanes; ++lane) wide[lane] = at[lane];
    return __builtin_convertvector(wide, Vector<kLanes>);
  }
};

struct Float16Panel {
  using Value = uint16_t;
  static constexpr int kDepth = 1;
  static constexpr int64_t rows(int64_t depth) { return depth; }

  template <int kLanes, int kRow>
  static LEANMARK_INLINE Vector<kLanes> read(const uint16_t* at) {
#if defined(__x86_64__)
    if constexpr (kLanes > 4) {  // F16C, which every CPU with AVX2 and FMA has
      Vector<kLanes> wide;
      asm("vcvtph2ps %1, %0" : "=v"(wide) : "m"(*reinterpret_cast<const Vector<kLanes, uint16_t>*>(at)));
      return wide;
    }
#endif
    // The exponent's bias differs by 112; what has the largest exponent is infinite or NaN.
    const auto bits = __builtin_convertvector(load<Vector<kLanes, uint16_t>>(at), Vector<kLanes, uint32_t>);
    const auto shifted = reinterpret_cast<Vector<kLanes>>((bits & 0x7fffu) << 13) * 0x1p112f;
    const auto special = reinterpret_cast<Vector<kLanes, uint32_t>>((bits & 0x7c00u) == 0x7c00u) & 0x7f800000u;
    return reinterpret_cast<Vector<kLanes>>(reinterpret_cast<Vector<kLanes, uint32_t>>(shifted) | special |
                                            (bits & 0x8000u) << 16);
  }
};

// Two consecutive rows are interleaved, [depth / 2][kPanelWidth][2], the last one with zeros if need be: a
// float is then a shift or a mask away.
struct BFloat16Panel {
  using Value = uint16_t;
  static constexpr int kDepth = 2;
  static constexpr int64_t rows(int64_t depth) { return (depth + 1) / 2 * 2; }

  template <int kLanes, int kRow>
  static LEANMARK_INLINE Vector<kLanes> read(const uint16_t* at) {
    if constexpr (kRow == 1) asm("" : "+r"(at));  // reads again rather than keep both rows in registers
    const auto both = load<Vector<kLanes, uint32_t>>(at);
    return reinterpret_cast<Vector<kLanes>>(kRow == 0 ? both << 16 : both & 0xffff0000u);
  }
};

// sums[row][vector] of kRows rows at `a` times the first kUsed vectors of kPanels panels at `b`.
template <class Panel, int kLanes, int kRows, int kPanels, int kUsed = kPanels * kPanelWidth / kLanes>
struct Product {
  static constexpr int kPerPanel = kPanelWidth / kLanes;
  static constexpr int kVectors = kUsed;

  using Value = typename Panel::Value;
  using V = Vector<kLanes>;

  V sums[kRows][kVectors];

  // kPrefetch: ask for what lies `ahead` values behind the current row of the first kAsked panels.
  template <bool kPrefetch, int kAsked = kPanels>
  LEANMARK_INLINE void run(const float* a, int64_t a_stride, const Value* b, int64_t b_stride, int64_t depth,
                           int64_t ahead) {
    clear();
    add<kPrefetch, kAsked>(a, a_stride, b, b_stride, depth, ahead);
  }

  LEANMARK_INLINE void clear() {
    #pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      #pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) sums[r][v] = V{};
    }
  }

  // To what is there already: of a product whose depth lies in several places.
  template <bool kPrefetch, int kAsked = kPanels>
  LEANMARK_INLINE void add(const float* a, int64_t a_stride, const Value* b, int64_t b_stride, int64_t depth,
                           int64_t ahead) {
    const int64_t whole = depth - depth % kStep;
    int64_t k = 0;
    for (; k < whole; k += kStep) {
      if constexpr (kPrefetch) prefetch<kAsked>(b + k * kPanelWidth + ahead, b_stride);
      #pragma GCC unroll 8
      for (int u = 0; u < kStep; u += Panel::kDepth) {
        step<Panel::kDepth>(a + k + u, a_stride, b + (k + u) * kPanelWidth, b_stride);
      }
    }
    for (; k + Panel::kDepth <= depth; k += Panel::kDepth) {
      step<Panel::kDepth>(a + k, a_stride, b + k * kPanelWidth, b_stride);
    }
    if (k < depth) step<1>(a + k, a_stride, b + k * kPanelWidth, b_stride);
  }

  LEANMARK_INLINE void store_to(float* to, int64_t stride) const {
    #pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      #pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) store(sums[r][v], to + r * stride + v * kLanes);
    }
  }

 private:
  static constexpr int kStep = 4;

  template <int kAsked>
  static LEANMARK_INLINE void prefetch(const Value* b, int64_t b_stride) {
    #pragma GCC unroll 16
    for (int p = 0; p < kAsked; ++p) {
      const char* at = reinterpret_cast<const char*>(b + p * b_stride);
      #pragma GCC unroll 8
      for (int line = 0; line < kStep * kPanelWidth * int(sizeof(Value)); line += 64) {
        __builtin_prefetch(at + line);
      }
    }
  }

  // The first kCount of the rows that lie together in the panel.
  template <int kCount>
  LEANMARK_INLINE void step(const float* a, int64_t a_stride, const Value* b, int64_t b_stride) {
    row<0>(a, a_stride, b, b_stride);
    if constexpr (kCount == 2) row<1>(a, a_stride, b, b_stride);
  }

  template <int kRow>
  LEANMARK_INLINE void row(const float* a, int64_t a_stride, const Value* b, int64_t b_stride) {
    const auto weight = [&](int v) __attribute__((always_inline)) {
      const int64_t lane = v % kPerPanel * kLanes * Panel::kDepth;
      return Panel::template read<kLanes, kRow>(b + v / kPerPanel * b_stride + lane);
    };
    // The shorter side stays in registers, or the sums would not.
    if constexpr (kVectors > kRows) {
      #pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) {
        const V w = weight(v);
        #pragma GCC unroll 16
        for (int r = 0; r < kRows; ++r) sums[r][v] += a[r * a_stride + kRow] * w;
      }
    } else {
      V w[kVectors];
      #pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) w[v] = weight(v);
      #pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        const float x = a[r * a_stride + kRow];
        #pragma GCC unroll 16
        for (int v = 0; v < kVectors; ++v) sums[r][v] += x * w[v];
      }
    }
  }
};

// `rows` rows in as few tiles of at most `most` as possible, and these as even as possible.
struct RowTiles {
  int64_t base, longer;
  RowTiles(int64_t rows, int64_t most) {
    const int64_t count = std::max<int64_t>(1, (rows + most - 1) / most);
    base = rows / count;
    longer = rows % count;
  }
  int64_t next() { return longer-- > 0 ? base + 1 : base; }
};

}  // namespace leanmark
