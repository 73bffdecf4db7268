// The transforms of each form, along one axis (Lavin and Gray, CVPR 2016, section 4).
//
// The kIn input pixels under kOut output pixels become as many points, and those of the next tile begin kStep
// further. Each point meets one of kWeights transformed weights, which `group` names.
#pragma once

#include <array>
#include <cstdint>

#include "cpu/vector.h"

namespace leanmark::winograd {

// Every point has weights of its own.
template <int kPoints>
struct Alone {
  static constexpr int kIn = kPoints, kWeights = kPoints;
  static constexpr int group(int point) { return point; }
};

// F(2, 3). Points 0, 1, -1 and infinity.
struct F2 : Alone<4> {
  static constexpr int kOut = 2, kStep = 2;

  template <int kStride, class V>
  static LEANMARK_INLINE void input(V* d) {
    const V d0 = d[0], d1 = d[kStride], d2 = d[2 * kStride], d3 = d[3 * kStride];
    d[0] = d0 - d2;
    d[kStride] = d1 + d2;
    d[2 * kStride] = d2 - d1;
    d[3 * kStride] = d1 - d3;
  }

  template <int kStride, int kOutStride, class V>
  static LEANMARK_INLINE void output(const V* m, V* y) {
    const V m0 = m[0], m1 = m[kStride], m2 = m[2 * kStride], m3 = m[3 * kStride];
    y[0] = m0 + m1 + m2;
    y[kOutStride] = m1 - m2 - m3;
  }
};

// F(4, 3). Points 0, 1, -1, 2, -2 and infinity.
struct F4 : Alone<6> {
  static constexpr int kOut = 4, kStep = 4;

  template <int kStride, class V>
  static LEANMARK_INLINE void input(V* d) {
    const V d0 = d[0], d1 = d[kStride], d2 = d[2 * kStride], d3 = d[3 * kStride], d4 = d[4 * kStride],
            d5 = d[5 * kStride];
    const V even = d4 - 4.0f * d2, odd = d3 - 4.0f * d1;
    const V near = d4 - d2, far = 2.0f * (d3 - d1);
    d[0] = 4.0f * d0 + (d4 - 5.0f * d2);
    d[kStride] = even + odd;
    d[2 * kStride] = even - odd;
    d[3 * kStride] = near + far;
    d[4 * kStride] = near - far;
    d[5 * kStride] = 4.0f * d1 + (d5 - 5.0f * d3);
  }

  template <int kStride, int kOutStride, class V>
  static LEANMARK_INLINE void output(const V* m, V* y) {
    const V m0 = m[0], m5 = m[5 * kStride];
    const V even1 = m[kStride] + m[2 * kStride], odd1 = m[kStride] - m[2 * kStride];
    const V even2 = m[3 * kStride] + m[4 * kStride], odd2 = m[3 * kStride] - m[4 * kStride];
    y[0] = m0 + even1 + even2;
    y[kOutStride] = odd1 + 2.0f * odd2;
    y[2 * kOutStride] = even1 + 4.0f * even2;
    y[3 * kOutStride] = odd1 + 8.0f * odd2 + m5;
  }
};

// F(4, 3) of weights that are transformed when they are used: in two steps and none of their factors, which are 1/4,
// -1/6, -1/6, 1/24, 1/24 and 1. The output transform multiplies by these.
struct F4AsStored : F4 {
  // Row kRow; `tap` gives the three weights.
  template <int kRow, class Tap>
  static LEANMARK_INLINE auto weights(const Tap& tap) {
    if constexpr (kRow == 0) return tap(0);
    if constexpr (kRow == 1) return tap(0) + tap(2) + tap(1);
    if constexpr (kRow == 2) return tap(0) + tap(2) - tap(1);
    if constexpr (kRow == 3) return tap(0) + 4.0f * tap(2) + 2.0f * tap(1);
    if constexpr (kRow == 4) return tap(0) + 4.0f * tap(2) - 2.0f * tap(1);
    if constexpr (kRow == 5) return tap(2);
  }

  template <int kStride, int kOutStride, class V>
  static LEANMARK_INLINE void output(const V* m, V* y) {
    V scaled[kIn];
    constexpr float kFactors[] = {1 / 4.0f, -1 / 6.0f, -1 / 6.0f, 1 / 24.0f, 1 / 24.0f, 1.0f};
    #pragma GCC unroll 6
    for (int i = 0; i < kIn; ++i) scaled[i] = kFactors[i] * m[i * kStride];
    F4::output<1, kOutStride>(scaled, y);
  }
};

// F(3, 4), on the points of F(4, 3).
struct F3 : Alone<6> {
  static constexpr int kOut = 3, kStep = 3;

  template <int kStride, class V>
  static LEANMARK_INLINE void input(V* d) {
    F4::input<kStride>(d);
  }

  template <int kStride, int kOutStride, class V>
  static LEANMARK_INLINE void output(const V* m, V* y) {
    const V m0 = m[0], m5 = m[5 * kStride];
    const V even1 = m[kStride] + m[2 * kStride], odd1 = m[kStride] - m[2 * kStride];
    const V even2 = m[3 * kStride] + m[4 * kStride], odd2 = m[3 * kStride] - m[4 * kStride];
    y[0] = m0 + even1 + even2;
    y[kOutStride] = odd1 + 2.0f * odd2;
    y[2 * kOutStride] = even1 + 4.0f * even2 + m5;
  }
};

// Three taps, two outputs at stride 2: F(2, 2) of the even pixels with points 0, 1 and infinity, where the outer
// taps meet, and the odd pixels as they are, for the middle one.
struct Stride2 {
  static constexpr int kOut = 2, kStep = 4, kIn = 5, kWeights = 4;
  static constexpr int group(int point) { return point < 3 ? point : 3; }

  template <int kStride, class V>
  static LEANMARK_INLINE void input(V* d) {
    const V d0 = d[0], d1 = d[kStride], d2 = d[2 * kStride], d3 = d[3 * kStride], d4 = d[4 * kStride];
    d[0] = d0 - d2;
    d[kStride] = d2;
    d[2 * kStride] = d4 - d2;
    d[3 * kStride] = d1;
    d[4 * kStride] = d3;
  }

  template <int kStride, int kOutStride, class V>
  static LEANMARK_INLINE void output(const V* m, V* y) {
    y[0] = m[0] + m[kStride] + m[3 * kStride];
    y[kOutStride] = m[kStride] + m[2 * kStride] + m[4 * kStride];
  }
};

// In two dimensions: the weights are numbered row by row, and so are the points that share them.
template <class Tile>
struct Order {
  std::array<uint8_t, 37> first{};  // point of each weights, and the end
  std::array<uint8_t, Tile::kIn * Tile::kIn> place{};  // of point (i, j)

  constexpr Order() {
    int next = 0;
    for (int weights = 0; weights < Tile::kWeights * Tile::kWeights; ++weights) {
      first[weights] = next;
      for (int e = 0; e < Tile::kIn * Tile::kIn; ++e) {
        const int down = Tile::group(e / Tile::kIn), right = Tile::group(e % Tile::kIn);
        if (down * Tile::kWeights + right == weights) place[e] = next++;
      }
      first[weights + 1] = next;
    }
  }
};

template <class Tile>
inline constexpr Order<Tile> kOrder{};

}  // namespace leanmark::winograd
