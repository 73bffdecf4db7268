// The transforms of an exact F(4x4, 3x3), along one axis.
//
// Winograd's algorithm has a point of the projective line for each row of its matrices (Lavin and Gray, CVPR 2016),
// here 0, 1, -1, 2, -1/2 and infinity. An output is the sum of the products of its points, each divided by the
// product of the determinants of that point with the others: 2, 6, 6, 30, 30 and 2. The six lie two each in the three
// classes that there are modulo 2, so that 2 divides none of these numbers twice. The points 0, 1, -1, 2 and -2 of
// floating point have 24 there, and would lose six bits of a sum where these lose two.
#pragma once

#include "cpu/vector.h"

namespace leanmark::int8_winograd {

constexpr int64_t kOut = 4, kIn = 6, kTaps = 3;

// Of the pixels less the zero point, 9 bits: they have 16 bits after both axes, at most 24990.
template <int kStride, class V>
LEANMARK_INLINE void transform_input(V* d) {
  const V d0 = d[0], d1 = d[kStride], d2 = d[2 * kStride], d3 = d[3 * kStride], d4 = d[4 * kStride],
          d5 = d[5 * kStride];
  const V odd = d3 - d1, even = d4 - d2;
  d[0] = 2 * (d0 - d2) - 3 * odd + 2 * even;
  d[kStride] = 3 * (d1 + d2) + odd - 2 * even;
  d[2 * kStride] = 3 * (d2 - d3) - 2 * odd + 2 * even;
  d[3 * kStride] = odd + 2 * even;
  d[4 * kStride] = 2 * odd - even;
  d[5 * kStride] = 2 * (d5 - d3) - 2 * odd - 3 * even;
}

// One of the six weights that three become. Of 8 bits, they have 14 after both axes, at most 6272.
template <int kRow, class V>
LEANMARK_INLINE V weight_of(V g0, V g1, V g2) {
  if constexpr (kRow == 0) return g0;
  if constexpr (kRow == 1) return g0 + g2 + g1;
  if constexpr (kRow == 2) return g0 + g2 - g1;
  if constexpr (kRow == 3) return g0 + (g1 << 1) + (g2 << 2);
  if constexpr (kRow == 4) return (g0 << 2) - (g1 << 1) + g2;
  return g2;
}

template <class V>
LEANMARK_INLINE void transform_weight(const V (&g)[kTaps], V (&u)[kIn]) {
  u[0] = weight_of<0>(g[0], g[1], g[2]);
  u[1] = weight_of<1>(g[0], g[1], g[2]);
  u[2] = weight_of<2>(g[0], g[1], g[2]);
  u[3] = weight_of<3>(g[0], g[1], g[2]);
  u[4] = weight_of<4>(g[0], g[1], g[2]);
  u[5] = weight_of<5>(g[0], g[1], g[2]);
}

// 30 times the outputs, of unsigned numbers: modulo 2^32.
template <int kStride, int kOutStride, class V>
LEANMARK_INLINE void transform_output(const V* m, V* y) {
  const V m0 = m[0], m1 = m[kStride], m2 = m[2 * kStride], m3 = m[3 * kStride], m4 = m[4 * kStride],
          m5 = m[5 * kStride];
  const V even = m1 + m2, odd = m1 - m2;
  const V even5 = (even << 2) + even, odd5 = (odd << 2) + odd;
  y[0] = (m0 << 4) - m0 + even5 + m3 + (m4 << 3);
  y[kOutStride] = odd5 + (m3 << 1) - (m4 << 2);
  y[2 * kOutStride] = even5 + (m3 << 2) + (m4 << 1);
  y[3 * kOutStride] = odd5 + (m3 << 3) - m4 + (m5 << 4) - m5;
}

// What 900 = 4 * 225 times a number below 2^29 was, modulo 2^32.
template <class Signed, class V>
LEANMARK_INLINE Signed divide_by_900(V product) {
  constexpr uint32_t kInverseOf225 = 0x87654321;
  return reinterpret_cast<Signed>(product * kInverseOf225) >> 2;
}

}  // namespace leanmark::int8_winograd
