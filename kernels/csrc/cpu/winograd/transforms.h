// The transforms of F(2x2, 3x3) and F(4x4, 3x3), along one axis (Lavin and Gray, CVPR 2016, section 4).
#pragma once

#include "cpu/vector.h"

namespace leanmark::winograd {

// Points 0, 1, -1 and infinity.
struct F2 {
  static constexpr int kOut = 2, kIn = 4;

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

// Points 0, 1, -1, 2, -2 and infinity.
struct F4 {
  static constexpr int kOut = 4, kIn = 6;

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

}  // namespace leanmark::winograd
