// Linear layers with 4-bit weights and 8-bit activations for AVX-512 with VNNI.
#define LEANMARK_TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")))

#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12 warns of its own intrinsics

#include <immintrin.h>

#include "cpu/avx512vnni/dot.h"
#include "cpu/avx512vnni/prefetch.h"
#include "cpu/w4a8_linear/kernel.h"

namespace leanmark::w4a8_linear {
namespace {

struct Avx512Vnni {
  static constexpr int kLanes = 16;

  static constexpr int panels(int rows) { return rows == kTileRows ? 2 : 4; }

  static int32_t offset(const PairSums& sums) { return -8 * (sums.low + sums.high); }

  LEANMARK_TARGET static uint32_t largest(const float* from, int64_t count) {
    const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
    __m512i most = _mm512_setzero_si512();
    for (int64_t i = 0; i < count; i += 16) {
      most = _mm512_max_epu32(most, _mm512_and_si512(_mm512_loadu_si512(from + i), magnitude));
    }
    return _mm512_reduce_max_epu32(most);
  }

  LEANMARK_TARGET static PairSums chunk(const float* from, float inverse, int8_t* to, int64_t stride) {
    const __m512 factor = _mm512_set1_ps(inverse);
    const __m512i low = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(from), factor));
    const __m512i high = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(from + 16), factor));
    const __m256i all = _mm256_set_m128i(_mm512_cvtsepi32_epi8(high), _mm512_cvtsepi32_epi8(low));
    if (stride == 4) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), all);
    } else {
      alignas(32) int32_t fours[8];
      _mm256_store_si256(reinterpret_cast<__m256i*>(fours), all);
      for (int i = 0; i < 8; ++i) std::memcpy(to + i * stride, fours + i, 4);
    }
    const __m256i sums = _mm256_dpbusd_epi32(_mm256_setzero_si256(), _mm256_set1_epi8(1), all);
    return {_mm512_reduce_add_epi32(_mm512_zextsi256_si512(sums)), 0};
  }

  template <int kRows, int kPanels>
  LEANMARK_TARGET LEANMARK_OUTLINE static void products(const Tile& tile, const Panel& panel, float* sums) {
    const int8_t* x = tile.values;
    const uint8_t* w = panel.weight;
    const int32_t* offsets = tile.offsets;
    const float *scales = tile.scales, *scale = panel.scale;
    __m512 totals[kPanels][kRows];
    #pragma GCC unroll 16
    for (int i = 0; i < kPanels * kRows; ++i) totals[i / kRows][i % kRows] = _mm512_load_ps(sums + kPanelWidth * i);
    for (int64_t group = 0; group < panel.groups; ++group, scale += kPanelWidth) {
      for (int64_t span = 0; span < panel.spans_per_group; ++span, offsets += kRows, scales += kRows) {
        __m512i dots[kPanels][kRows];
        #pragma GCC unroll 16
        for (int i = 0; i < kPanels * kRows; ++i) dots[i / kRows][i % kRows] = _mm512_set1_epi32(offsets[i % kRows]);
        for (int64_t k = 0; k < panel.span; k += 32, x += 32 * kRows, w += 256) {
          const int64_t ahead = ahead_of(w - panel.weight, panel.weight_stride, kPanels);
          #pragma GCC unroll 4
          for (int u = 0; u < 4; ++u) {
            add_line<kRows, kPanels>(x + u * 8 * kRows, w + u * 64, panel.weight_stride, ahead, dots);
          }
        }
        #pragma GCC unroll 4
        for (int p = 0; p < kPanels; ++p) {
          const __m512 columns = _mm512_loadu_ps(scale + p * panel.scale_stride);
          #pragma GCC unroll 4
          for (int r = 0; r < kRows; ++r) {
            const __m512 factor = _mm512_mul_ps(_mm512_set1_ps(scales[r]), columns);
            totals[p][r] = _mm512_fmadd_ps(factor, _mm512_cvtepi32_ps(dots[p][r]), totals[p][r]);
          }
        }
      }
    }
    #pragma GCC unroll 16
    for (int i = 0; i < kPanels * kRows; ++i) _mm512_store_ps(sums + kPanelWidth * i, totals[i / kRows][i % kRows]);
  }

 private:
  template <int kRows, int kPanels>
  LEANMARK_TARGET LEANMARK_INLINE static void add_line(const int8_t* x, const uint8_t* w, int64_t stride, int64_t ahead,
                                                       __m512i (&dots)[kPanels][kRows]) {
    const __m512i nibble = _mm512_set1_epi8(15);
    #pragma GCC unroll 4
    for (int p = 0; p < kPanels; ++p) {
      const uint8_t* line = w + p * stride;
      _mm_prefetch(reinterpret_cast<const char*>(line) + ahead, _MM_HINT_T0);
      __m512i both = _mm512_loadu_si512(line);
      asm("" : "+v"(both));  // or both uses would load it
      const __m512i low = _mm512_and_si512(both, nibble);
      const __m512i high = _mm512_and_si512(_mm512_srli_epi16(both, 4), nibble);
      #pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) {
        const __m512i x0 = _mm512_set1_epi32(load<int32_t>(x + 4 * r));
        const __m512i x1 = _mm512_set1_epi32(load<int32_t>(x + 4 * kRows + 4 * r));
        dots[p][r] = plus_dot(plus_dot(dots[p][r], low, x0), high, x1);
      }
    }
  }
};

LEANMARK_TARGET void quantize_tiles(const Plan& p, int64_t begin, int64_t end) {
  quantize<Avx512Vnni>(p, begin, end);
}

LEANMARK_TARGET void multiply_items(const Plan& p, int64_t begin, int64_t end) {
  multiply<Avx512Vnni>(p, begin, end);
}

}  // namespace

const Kernel& kernel_avx512vnni() {
  static constexpr Kernel kernel{quantize_tiles, multiply_items};
  return kernel;
}

}  // namespace leanmark::w4a8_linear
