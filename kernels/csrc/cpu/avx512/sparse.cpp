// Products with sparse weights for AVX-512.
#define LEANMARK_TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq")))

#include <immintrin.h>

// GCC 12 takes the undefined vectors in its own header for a mistake.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"

#include "cpu/sparse/kernel.h"

namespace leanmark::sparse {

// Looked up by permutations for all rows that are summed together: four offsets of 16 bits then come with one load,
// and loads are what the sums wait for.
template <>
struct Offsets<16> {
  static constexpr int kAtOnce = 32;
  alignas(64) uint16_t found[kMostEntries + kAtOnce];
  int64_t first;

  LEANMARK_INLINE Offsets(const Plan& p, Entries e) : first(e.first) { look_up(p, e); }
  LEANMARK_INLINE int64_t operator[](int64_t entry) const { return found[entry - first]; }

  struct Four {
    uint64_t offsets;

    template <int kIndex>
    LEANMARK_INLINE int64_t at() const {
      return offsets >> 16 * kIndex & 0xffff;
    }
  };
  LEANMARK_INLINE Four four(int64_t entry) const {
    Four four;
    std::memcpy(&four.offsets, found + (entry - first), sizeof(four.offsets));
    return four;
  }

 private:
  LEANMARK_TARGET LEANMARK_OUTLINE void look_up(const Plan& p, Entries e) {
    __m512i table[kIndices / kAtOnce];
    #pragma GCC unroll 8
    for (int i = 0; i < kIndices / kAtOnce; ++i) {
      const int32_t* from = p.offsets + i * kAtOnce;
      const __m256i low = _mm512_cvtepi32_epi16(_mm512_loadu_si512(from));
      const __m256i high = _mm512_cvtepi32_epi16(_mm512_loadu_si512(from + 16));
      table[i] = _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
    }
    for (int64_t i = 0; i < e.last - e.first; i += kAtOnce) {
      const int64_t left = e.last - e.first - i;
      const __mmask32 there = left < kAtOnce ? (1u << left) - 1 : ~0u;
      const __m512i at = _mm512_cvtepu8_epi16(_mm256_maskz_loadu_epi8(there, p.weights.indices + e.first + i));
      const __mmask32 odd = _mm512_test_epi16_mask(at, _mm512_set1_epi16(64));
      const __mmask32 upper = _mm512_test_epi16_mask(at, _mm512_set1_epi16(128));
      const auto pair = [&](int first) LEANMARK_TARGET __attribute__((always_inline)) {
        return _mm512_mask_blend_epi16(odd, _mm512_permutex2var_epi16(table[first], at, table[first + 1]),
                                       _mm512_permutex2var_epi16(table[first + 2], at, table[first + 3]));
      };
      _mm512_store_si512(found + i, _mm512_mask_blend_epi16(upper, pair(0), pair(4)));
    }
  }
};

namespace {

template <int kBlock, bool kLinear>
LEANMARK_TARGET void work(const Plan& p, int64_t begin, int64_t end, Worker& worker) {
  run<16, kBlock, kLinear>(p, begin, end, worker);
}

LEANMARK_TARGET void planes(const float* from, int64_t pixels, int64_t channels, float* to) {
  transpose_all(from, pixels, channels, to);
}

}  // namespace

Kernel kernel_avx512(int64_t block) {
  if (block == 4) return {work<4, true>, work<4, false>, planes, 16, 128, 0xffff};
  return {work<1, true>, work<1, false>, planes, 16, 128, 0xffff};
}

}  // namespace leanmark::sparse
