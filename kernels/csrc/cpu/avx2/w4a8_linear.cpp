// Linear layers with 4-bit weights and 8-bit activations for AVX2 and FMA.
#define LEANMARK_TARGET __attribute__((target("avx2,fma")))

#include <immintrin.h>

#include "cpu/w4a8_linear/kernel.h"

namespace leanmark::w4a8_linear {
namespace {

// Four rows, which fill the registers, and one are in assembly, since GCC 12 would spill: ymm0-7 are 16-bit sums of
// 4 rows x 16 columns, ymm8-11 a line of weights, unpacked, and ymm15 the mask of a nibble.
#define LINE(s)                                                                                             \
  "vmovdqu " #s "*64(%[w]), %%ymm8\n vmovdqu " #s "*64+32(%[w]), %%ymm9\n"                                  \
  "vpsrlw $4, %%ymm8, %%ymm10\n vpsrlw $4, %%ymm9, %%ymm11\n"                                               \
  "vpand %%ymm15, %%ymm8, %%ymm8\n vpand %%ymm15, %%ymm9, %%ymm9\n"                                         \
  "vpand %%ymm15, %%ymm10, %%ymm10\n vpand %%ymm15, %%ymm11, %%ymm11\n"                                     \
  "prefetcht0 " #s "*64+1536(%[w])\n"
#define PRODUCTS(at, W0, W1, S0, S1)                                                                        \
  "vpbroadcastd " at "(%[x]), %%ymm12\n"                                                                    \
  "vpmaddubsw %%ymm12, %%ymm" #W0 ", %%ymm13\n vpmaddubsw %%ymm12, %%ymm" #W1 ", %%ymm14\n"                 \
  "vpaddw %%ymm13, %%ymm" #S0 ", %%ymm" #S0 "\n vpaddw %%ymm14, %%ymm" #S1 ", %%ymm" #S1 "\n"
#define ROW(s, r, S0, S1) PRODUCTS(#s "*32+" #r "*4", 8, 9, S0, S1) PRODUCTS(#s "*32+16+" #r "*4", 10, 11, S0, S1)
#define STEP(s) LINE(s) ROW(s, 0, 0, 1) ROW(s, 1, 2, 3) ROW(s, 2, 4, 5) ROW(s, 3, 6, 7)
#define START(r, S0, S1) "vpbroadcastd " #r "*4(%[offsets]), %%ymm" #S0 "\n vmovdqa %%ymm" #S0 ", %%ymm" #S1 "\n"
#define FINISH(r, S0, S1)                                                                                   \
  "vbroadcastss " #r "*4(%[scales]), %%ymm10\n"                                                             \
  "vmulps %%ymm8, %%ymm10, %%ymm11\n vmulps %%ymm9, %%ymm10, %%ymm12\n"                                     \
  "vpmaddwd %%ymm15, %%ymm" #S0 ", %%ymm" #S0 "\n vpmaddwd %%ymm15, %%ymm" #S1 ", %%ymm" #S1 "\n"           \
  "vcvtdq2ps %%ymm" #S0 ", %%ymm" #S0 "\n vcvtdq2ps %%ymm" #S1 ", %%ymm" #S1 "\n"                           \
  "vfmadd213ps " #r "*64(%[sums]), %%ymm11, %%ymm" #S0 "\n"                                                 \
  "vfmadd213ps " #r "*64+32(%[sums]), %%ymm12, %%ymm" #S1 "\n"                                              \
  "vmovaps %%ymm" #S0 ", " #r "*64(%[sums])\n vmovaps %%ymm" #S1 ", " #r "*64+32(%[sums])\n"

LEANMARK_INLINE void span_of_four(const int8_t* x, const uint8_t* w, const int32_t* offsets, const float* scales,
                                  const float* scale, int64_t span, float* sums) {
  int64_t turns = span / 32;
  asm volatile(
      "vpcmpeqb %%ymm15, %%ymm15, %%ymm15\n vpsrlw $12, %%ymm15, %%ymm15\n vpackuswb %%ymm15, %%ymm15, %%ymm15\n"
      START(0, 0, 1) START(1, 2, 3) START(2, 4, 5) START(3, 6, 7)
      "1:\n" STEP(0) STEP(1) STEP(2) STEP(3)
      "add $128, %[x]\n add $256, %[w]\n dec %[turns]\n jnz 1b\n"
      "vpcmpeqw %%ymm15, %%ymm15, %%ymm15\n vpsrlw $15, %%ymm15, %%ymm15\n"
      "vmovups (%[scale]), %%ymm8\n vmovups 32(%[scale]), %%ymm9\n"
      FINISH(0, 0, 1) FINISH(1, 2, 3) FINISH(2, 4, 5) FINISH(3, 6, 7)
      : [x] "+r"(x), [w] "+r"(w), [turns] "+r"(turns)
      : [offsets] "r"(offsets), [scales] "r"(scales), [scale] "r"(scale), [sums] "r"(sums)
      : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12",
        "xmm13", "xmm14", "xmm15", "memory", "cc");
}

#define LINE_OF_ONE(s) LINE(s) PRODUCTS(#s "*8", 8, 9, 0, 1) PRODUCTS(#s "*8+4", 10, 11, 0, 1)

// Depth 32.
LEANMARK_TARGET LEANMARK_INLINE void lines_of_one(const int8_t* x, const uint8_t* w, __m256i (&dots)[1][2]) {
  register __m256i low asm("xmm0") = dots[0][0], high asm("xmm1") = dots[0][1];
  register const __m256i nibble asm("xmm15") = _mm256_set1_epi8(15);
  asm volatile(LINE_OF_ONE(0) LINE_OF_ONE(1) LINE_OF_ONE(2) LINE_OF_ONE(3)
               : "+x"(low), "+x"(high)
               : [x] "r"(x), [w] "r"(w), "x"(nibble)
               : "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "memory");
  dots[0][0] = low;
  dots[0][1] = high;
}

struct Avx2 {
  static constexpr int kLanes = 8;

  static constexpr int panels(int) { return 1; }

  // -8 times both sums, in 16 bits each.
  static int32_t offset(const PairSums& sums) {
    const auto low = static_cast<uint16_t>(-8 * sums.low), high = static_cast<uint16_t>(-8 * sums.high);
    return static_cast<int32_t>(static_cast<uint32_t>(high) << 16 | low);
  }

  LEANMARK_TARGET static uint32_t largest(const float* from, int64_t count) {
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    __m256i most = _mm256_setzero_si256();
    for (int64_t i = 0; i < count; i += 8) {
      const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + i));
      most = _mm256_max_epi32(most, _mm256_and_si256(bits, magnitude));
    }
    __m128i four = _mm_max_epi32(_mm256_castsi256_si128(most), _mm256_extracti128_si256(most, 1));
    four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0xb1));
    return static_cast<uint32_t>(_mm_cvtsi128_si32(four));
  }

  LEANMARK_TARGET static PairSums chunk(const float* from, float inverse, int8_t* to, int64_t stride) {
    const __m256 factor = _mm256_set1_ps(inverse);
    __m256i wide[4];
    for (int i = 0; i < 4; ++i) {
      wide[i] = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(from + 8 * i), factor));
    }
    const __m256i mixed = _mm256_packs_epi16(_mm256_packs_epi32(wide[0], wide[1]), _mm256_packs_epi32(wide[2], wide[3]));
    const __m256i all = _mm256_permutevar8x32_epi32(mixed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    alignas(32) int32_t fours[8];
    _mm256_store_si256(reinterpret_cast<__m256i*>(fours), all);
    for (int i = 0; i < 8; ++i) std::memcpy(to + i * stride, fours + i, 4);

    const __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), all);
    __m128i sums = _mm_add_epi16(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1));
    sums = _mm_add_epi16(sums, _mm_shuffle_epi32(sums, 0x4e));
    sums = _mm_add_epi16(sums, _mm_shuffle_epi32(sums, 0xb1));
    return {static_cast<int16_t>(_mm_extract_epi16(sums, 0)), static_cast<int16_t>(_mm_extract_epi16(sums, 1))};
  }

  template <int kRows, int>
  LEANMARK_TARGET LEANMARK_OUTLINE static void products(const Tile& tile, const Panel& panel, float* sums) {
    if constexpr (kRows == kTileRows) {
      four_rows(tile, panel, sums);
    } else {
      few_rows<kRows>(tile, panel, sums);
    }
  }

 private:
  LEANMARK_TARGET LEANMARK_INLINE static void four_rows(const Tile& tile, const Panel& panel, float* sums) {
    const int8_t* x = tile.values;
    const uint8_t* w = panel.weight;
    const int32_t* offsets = tile.offsets;
    const float *scales = tile.scales, *scale = panel.scale;
    for (int64_t group = 0; group < panel.groups; ++group, scale += kPanelWidth) {
      for (int64_t span = 0; span < panel.spans_per_group; ++span) {
        span_of_four(x, w, offsets, scales, scale, panel.span, sums);
        x += panel.span * kTileRows;
        w += panel.span * (kPanelWidth / 2);
        offsets += kTileRows;
        scales += kTileRows;
      }
    }
  }

  template <int kRows>
  LEANMARK_TARGET LEANMARK_INLINE static void few_rows(const Tile& tile, const Panel& panel, float* sums) {
    const __m256i one = _mm256_set1_epi16(1);
    const int8_t* x = tile.values;
    const uint8_t* w = panel.weight;
    __m256 totals[kRows][2];
    #pragma GCC unroll 4
    for (int i = 0; i < 2 * kRows; ++i) totals[i / 2][i % 2] = _mm256_load_ps(sums + 8 * i);
    const int32_t* offsets = tile.offsets;
    const float *scales = tile.scales, *scale = panel.scale;
    for (int64_t group = 0; group < panel.groups; ++group, scale += kPanelWidth) {
      for (int64_t span = 0; span < panel.spans_per_group; ++span, offsets += kRows, scales += kRows) {
        __m256i dots[kRows][2];
        #pragma GCC unroll 2
        for (int r = 0; r < kRows; ++r) dots[r][0] = dots[r][1] = _mm256_set1_epi32(offsets[r]);
        for (int64_t k = 0; k < panel.span; k += 32, x += 32 * kRows, w += 256) {
          if constexpr (kRows == 1) {
            lines_of_one(x, w, dots);
          } else {
            #pragma GCC unroll 4
            for (int u = 0; u < 4; ++u) add_line<kRows>(x + u * 8 * kRows, w + u * 64, dots);
          }
        }
        #pragma GCC unroll 4
        for (int i = 0; i < 2 * kRows; ++i) {
          const __m256 dot = _mm256_cvtepi32_ps(_mm256_madd_epi16(dots[i / 2][i % 2], one));
          const __m256 factor = _mm256_mul_ps(_mm256_set1_ps(scales[i / 2]), _mm256_loadu_ps(scale + i % 2 * 8));
          totals[i / 2][i % 2] = _mm256_fmadd_ps(factor, dot, totals[i / 2][i % 2]);
        }
      }
    }
    #pragma GCC unroll 4
    for (int i = 0; i < 2 * kRows; ++i) _mm256_store_ps(sums + 8 * i, totals[i / 2][i % 2]);
  }

  template <int kRows>
  LEANMARK_TARGET LEANMARK_INLINE static void add_line(const int8_t* x, const uint8_t* w, __m256i (&dots)[kRows][2]) {
    const __m256i nibble = _mm256_set1_epi8(15);
    _mm_prefetch(reinterpret_cast<const char*>(w) + 1536, _MM_HINT_T0);
    #pragma GCC unroll 2
    for (int v = 0; v < 2; ++v) {
      const __m256i both = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w + 32 * v));
      const __m256i low = _mm256_and_si256(both, nibble);
      const __m256i high = _mm256_and_si256(_mm256_srli_epi16(both, 4), nibble);
      #pragma GCC unroll 2
      for (int r = 0; r < kRows; ++r) {
        const __m256i x0 = _mm256_set1_epi32(load<int32_t>(x + 4 * r));
        const __m256i x1 = _mm256_set1_epi32(load<int32_t>(x + 4 * kRows + 4 * r));
        const __m256i products = _mm256_add_epi16(_mm256_maddubs_epi16(low, x0), _mm256_maddubs_epi16(high, x1));
        dots[r][v] = _mm256_add_epi16(dots[r][v], products);
      }
    }
  }
};

LEANMARK_TARGET void quantize_tiles(const Plan& p, int64_t begin, int64_t end) { quantize<Avx2>(p, begin, end); }

LEANMARK_TARGET void multiply_items(const Plan& p, int64_t begin, int64_t end) { multiply<Avx2>(p, begin, end); }

}  // namespace

const Kernel& kernel_avx2() {
  static constexpr Kernel kernel{quantize_tiles, multiply_items};
  return kernel;
}

}  // namespace leanmark::w4a8_linear
