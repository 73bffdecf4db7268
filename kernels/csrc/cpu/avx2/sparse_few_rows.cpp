// Few rows times sparse weights for AVX2 and FMA.
#define LEANMARK_TARGET __attribute__((target("avx2,fma,popcnt")))

#include <immintrin.h>

#include <array>

#include "cpu/sparse/few_rows.h"

namespace leanmark::sparse {
namespace {

// For each mask of 8 lanes, which of the next values each lane takes; -1 for those that take none.
alignas(32) constexpr auto kSpread = [] {
  std::array<std::array<int32_t, 8>, 256> table{};
  for (int mask = 0; mask < 256; ++mask) {
    int next = 0;
    for (int lane = 0; lane < 8; ++lane) table[mask][lane] = mask >> lane & 1 ? next++ : -1;
  }
  return table;
}();

struct Avx2 {
  static constexpr int kVectors = 2, kMostRows = 4;

  struct Sum {
    __m256 low, high;
    LEANMARK_TARGET LEANMARK_INLINE Sum& operator+=(const Sum& other) {
      low += other.low;
      high += other.high;
      return *this;
    }
    LEANMARK_TARGET LEANMARK_INLINE void store_to(float* to) const {
      _mm256_storeu_ps(to, low);
      _mm256_storeu_ps(to + 8, high);
    }
  };

  // Of the picks, the lowest four bits of each lane count.
  struct Entries {
    __m256 low, high;
    __m256i low_picks, high_picks;
  };

  LEANMARK_TARGET LEANMARK_INLINE static __m256 spread(uint32_t mask, const float* values) {
    const __m256i from = _mm256_load_si256(reinterpret_cast<const __m256i*>(kSpread[mask].data()));
    const __m256 spread = _mm256_permutevar8x32_ps(_mm256_loadu_ps(values), from);
    return _mm256_blendv_ps(spread, _mm256_setzero_ps(), _mm256_castsi256_ps(from));
  }

  LEANMARK_TARGET LEANMARK_INLINE static Entries masked(uint32_t mask, const uint16_t* picked, const float* values) {
    const uint32_t low = mask & 255, high = mask >> 8;
    int64_t packed;
    std::memcpy(&packed, picked, sizeof(packed));
    const __m256i picks = _mm256_set1_epi64x(packed);
    return {spread(low, values), spread(high, values + __builtin_popcount(low)),
            _mm256_srlv_epi32(picks, _mm256_setr_epi32(0, 0, 4, 4, 8, 8, 12, 12)),
            _mm256_srlv_epi32(picks, _mm256_setr_epi32(16, 16, 20, 20, 24, 24, 28, 28))};
  }

  LEANMARK_TARGET LEANMARK_INLINE static Entries blocks(const uint16_t* step, const float* values) {
    int32_t packed;  // behind 16 other bits: 32 are broadcast from memory faster than 16
    std::memcpy(&packed, step, sizeof(packed));
    const __m256i picks = _mm256_set1_epi32(packed);
    return {_mm256_loadu_ps(values), _mm256_loadu_ps(values + 8),
            _mm256_srlv_epi32(picks, _mm256_setr_epi32(16, 16, 16, 16, 20, 20, 20, 20)),
            _mm256_srlv_epi32(picks, _mm256_setr_epi32(24, 24, 24, 24, 28, 28, 28, 28))};
  }

  LEANMARK_TARGET LEANMARK_INLINE static __m256 pick(__m256 low, __m256 high, __m256i picks) {
    const __m256 from_low = _mm256_permutevar8x32_ps(low, picks);
    const __m256 from_high = _mm256_permutevar8x32_ps(high, picks);
    return _mm256_blendv_ps(from_low, from_high, _mm256_castsi256_ps(_mm256_slli_epi32(picks, 28)));
  }

  LEANMARK_TARGET LEANMARK_INLINE static void add(const Entries& e, const float* window, Sum& sum) {
    const __m256 low = _mm256_loadu_ps(window), high = _mm256_loadu_ps(window + 8);
    sum.low = _mm256_fmadd_ps(e.low, pick(low, high, e.low_picks), sum.low);
    sum.high = _mm256_fmadd_ps(e.high, pick(low, high, e.high_picks), sum.high);
  }
};

template <int kBlock>
LEANMARK_TARGET void work(const FewRows& p, int64_t begin, int64_t end) {
  few_rows<Avx2, kBlock>(p, begin, end);
}

}  // namespace

FewRowsKernel few_rows_avx2(int64_t block) {
  if (block == 4) return {work<4>, 3};
  return {work<1>, 6};
}

}  // namespace leanmark::sparse
