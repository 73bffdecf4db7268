// One row times 8-bit weights for AVX-512 with VNNI: exact products of bytes, since converting the weights to floats
// takes longer than reading them. With more rows, which share the conversion, float32 is as fast.
//
// The row becomes 32-bit integers by a power of two, and these become four planes of signed bytes. Numbers down to
// 2^-6 of the largest magnitude keep all their bits; smaller ones are off by at most 2^-30 of it. Sums are exact
// until the planes are put together, so that the error is below that of adding up in float32. The instruction wants
// one side unsigned: weights have 128 added, which the sums of the planes take off again.
#define LEANMARK_TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")))

#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12 warns of its own intrinsics
#pragma GCC diagnostic ignored "-Wuninitialized"

#include <immintrin.h>

#include <cmath>

#include "cpu/avx512vnni/dot.h"
#include "cpu/avx512vnni/prefetch.h"
#include "cpu/packed_linear/kernel.h"

namespace leanmark::packed_linear {
namespace {

constexpr int kPlanes = 4, kQuad = 4;    // bytes of a number; numbers whose products one instruction adds up
constexpr int kPanelsAtOnce = 4;
constexpr int64_t kDeepest = 1 << 16;    // sums of 128 * 128 stay within 32 bits
constexpr float kSmallest = 0x1p-90f;    // and its power of two within float32

// Of every 128 bits, bytes 4 * i + j to 4 * j + i.
LEANMARK_TARGET LEANMARK_INLINE __m512i transposed(__m512i lanes) {
  const __m128i order = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  return _mm512_shuffle_epi8(lanes, _mm512_broadcast_i32x4(order));
}

// kQuad rows of a panel, [4, 16], as [16, 4], with 128 added.
LEANMARK_TARGET LEANMARK_INLINE __m512i columns_of(__m512i rows) {
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  return _mm512_xor_si512(transposed(_mm512_permutexvar_epi32(order, rows)), _mm512_set1_epi8(-128));
}

LEANMARK_TARGET LEANMARK_INLINE __mmask16 first(int64_t count) {
  return count >= 16 ? 0xffff : static_cast<__mmask16>((1u << count) - 1);
}

// The largest magnitude; NaN comes last.
LEANMARK_TARGET float largest(const float* from, int64_t count) {
  __m512i most = _mm512_setzero_si512();
  for (int64_t i = 0; i < count; i += 16) {
    const __m512i bits = _mm512_maskz_loadu_epi32(first(count - i), from + i);
    most = _mm512_max_epu32(most, _mm512_and_si512(bits, _mm512_set1_epi32(0x7fffffff)));
  }
  const uint32_t bits = _mm512_reduce_max_epu32(most);
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

// `from` times 2^power as [quads, kPlanes, kQuad] bytes, and the sum of each plane.
LEANMARK_TARGET void split(const float* from, int64_t depth, int power, int8_t* to, int32_t* plane_sums) {
  const __m512 factor = _mm512_set1_ps(std::ldexp(1.0f, power));
  const __m512i halves = _mm512_set1_epi32(0x00808080), one = _mm512_set1_epi8(1);
  __m512i sums = _mm512_setzero_si512();
  for (int64_t k = 0; k < depth; k += 16, to += 16 * kPlanes) {
    const __m512 values = _mm512_mul_ps(_mm512_maskz_loadu_ps(first(depth - k), from + k), factor);
    // What is 128 or more in a byte is negative there, and carried to the next.
    const __m512i carried = _mm512_add_epi32(_mm512_cvtps_epi32(values), halves);
    const __m512i planes = transposed(_mm512_xor_si512(carried, halves));
    sums = plus_dot(sums, one, planes);
    _mm512_storeu_si512(to, planes);
  }
  alignas(64) int32_t lanes[16];
  _mm512_store_si512(lanes, sums);
  for (int i = 0; i < kPlanes; ++i) plane_sums[i] = lanes[i] + lanes[i + 4] + lanes[i + 8] + lanes[i + 12];
}

template <int kPanels>
struct Sums {
  __m512i planes[kPlanes][kPanels];

  LEANMARK_TARGET LEANMARK_INLINE void start(const int32_t* plane_sums) {
    #pragma GCC unroll 16
    for (int i = 0; i < kPlanes * kPanels; ++i) {
      planes[i / kPanels][i % kPanels] = _mm512_set1_epi32(-128 * plane_sums[i / kPanels]);
    }
  }

  LEANMARK_TARGET LEANMARK_INLINE void add(const __m512i (&w)[kPanels], const int8_t* x) {
    #pragma GCC unroll 4
    for (int i = 0; i < kPlanes; ++i) {
      const __m512i plane = _mm512_set1_epi32(load<int32_t>(x + i * kQuad));
      #pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) planes[i][p] = plus_dot(planes[i][p], w[p], plane);
    }
  }

  LEANMARK_TARGET LEANMARK_INLINE void store_to(float unit, float* to) const {
    const __m512 base = _mm512_set1_ps(256.0f);
    #pragma GCC unroll 4
    for (int p = 0; p < kPanels; ++p) {
      __m512 sum = _mm512_cvtepi32_ps(planes[kPlanes - 1][p]);
      #pragma GCC unroll 4
      for (int i = kPlanes - 2; i >= 0; --i) sum = _mm512_fmadd_ps(sum, base, _mm512_cvtepi32_ps(planes[i][p]));
      _mm512_store_ps(to + p * kPanelWidth, _mm512_mul_ps(sum, _mm512_set1_ps(unit)));
    }
  }
};

template <int kPanels>
LEANMARK_TARGET LEANMARK_OUTLINE void byte_tile(const Plan& p, int64_t panel) {
  const int64_t stride = p.depth * kPanelWidth, rest = p.depth % kQuad;
  const auto* w = static_cast<const int8_t*>(p.weight) + panel * stride;
  const int8_t* x = p.planes;
  __m512i columns[kPanels];
  Sums<kPanels> sums;
  sums.start(p.plane_sums);
  for (int64_t k = rest; k < p.depth; k += kQuad, w += kQuad * kPanelWidth, x += kPlanes * kQuad) {
    const int64_t ahead = ahead_of((k - rest) * kPanelWidth, stride, kPanels);
    #pragma GCC unroll 4
    for (int i = 0; i < kPanels; ++i) {
      _mm_prefetch(reinterpret_cast<const char*>(w + i * stride) + ahead, _MM_HINT_T0);
      columns[i] = columns_of(_mm512_loadu_si512(w + i * stride));
    }
    sums.add(columns, x);
  }
  if (rest > 0) {
    const __mmask16 present = first(rest * kPanelWidth / 4);
    #pragma GCC unroll 4
    for (int i = 0; i < kPanels; ++i) columns[i] = columns_of(_mm512_maskz_loadu_epi32(present, w + i * stride));
    sums.add(columns, x);
  }
  alignas(64) float floats[kPanels * kPanelWidth];
  sums.store_to(p.unit, floats);
  finish<16>(p, floats, 1, kPanels * kPanelWidth, 0, panel * kPanelWidth);
}

LEANMARK_TARGET void byte_panels(const Plan& p, int64_t begin, int64_t end) {
  for (; begin + kPanelsAtOnce <= end; begin += kPanelsAtOnce) byte_tile<kPanelsAtOnce>(p, begin);
  for (; begin < end; ++begin) byte_tile<1>(p, begin);
}

}  // namespace

Kernel byte_kernel_avx512vnni(Plan& plan, int8_t* planes) {
  if (plan.depth > kDeepest) return {};
  const float most = largest(plan.input, plan.depth);
  if (!std::isfinite(most) || (most > 0.0f && most < kSmallest)) return {};
  const int power = most > 0.0f ? 29 - std::ilogb(most) : 0;
  split(plan.input, plan.depth, power, planes, plan.plane_sums);
  plan.planes = planes;
  plan.unit = std::ldexp(1.0f, -power);
  return {byte_panels, kPanelsAtOnce};
}

}  // namespace leanmark::packed_linear
