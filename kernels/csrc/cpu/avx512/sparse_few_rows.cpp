// Few rows times sparse weights for AVX-512.
#define LEANMARK_TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,popcnt")))

#include <immintrin.h>

// GCC 12 takes the undefined vectors in its own header for a mistake.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"

#include "cpu/sparse/few_rows.h"

namespace leanmark::sparse {
namespace {

struct Avx512 {
  static constexpr int kVectors = 1, kMostRows = 8;

  struct Sum {
    __m512 lanes;
    LEANMARK_TARGET LEANMARK_INLINE Sum& operator+=(const Sum& other) {
      lanes += other.lanes;
      return *this;
    }
    LEANMARK_TARGET LEANMARK_INLINE void store_to(float* to) const { _mm512_storeu_ps(to, lanes); }
  };

  struct Entries {
    __m512 values;
    __m512i picks;  // of which the lowest four bits of each lane count
  };

  LEANMARK_TARGET LEANMARK_INLINE static Entries masked(uint32_t mask, const uint16_t* picked, const float* values) {
    // vexpandps waits for its destination even where it zeroes it: a fresh zero costs nothing.
    __m512 spread = _mm512_setzero_ps();
    asm("" : "+v"(spread));
    spread = _mm512_mask_expand_ps(spread, mask, _mm512_loadu_ps(values));
    int64_t picks;
    std::memcpy(&picks, picked, sizeof(picks));
    const __m512i shifts = _mm512_setr_epi32(0, 0, 4, 4, 8, 8, 12, 12, 16, 16, 20, 20, 24, 24, 28, 28);
    return {spread, _mm512_srlv_epi32(_mm512_set1_epi64(picks), shifts)};
  }

  LEANMARK_TARGET LEANMARK_INLINE static Entries blocks(const uint16_t* step, const float* values) {
    int32_t picks;  // behind 16 other bits: 32 are broadcast from memory faster than 16
    std::memcpy(&picks, step, sizeof(picks));
    const __m512i shifts = _mm512_setr_epi32(16, 16, 16, 16, 20, 20, 20, 20, 24, 24, 24, 24, 28, 28, 28, 28);
    return {_mm512_loadu_ps(values), _mm512_srlv_epi32(_mm512_set1_epi32(picks), shifts)};
  }

  LEANMARK_TARGET LEANMARK_INLINE static void add(const Entries& e, const float* window, Sum& sum) {
    sum.lanes = _mm512_fmadd_ps(e.values, _mm512_permutexvar_ps(e.picks, _mm512_loadu_ps(window)), sum.lanes);
  }
};

template <int kBlock>
LEANMARK_TARGET void work(const FewRows& p, int64_t begin, int64_t end) {
  few_rows<Avx512, kBlock>(p, begin, end);
}

}  // namespace

FewRowsKernel few_rows_avx512(int64_t block) {
  if (block == 4) return {work<4>, 8};
  return {work<1>, 12};
}

}  // namespace leanmark::sparse
