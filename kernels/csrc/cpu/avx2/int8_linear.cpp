// Exact 8-bit linear layers for AVX2. Without FMA, so that no rounding step is fused.
#define LEANMARK_TARGET __attribute__((target("avx2")))

#include <immintrin.h>

#include <type_traits>

#include "cpu/int8_linear/kernel.h"

namespace leanmark::int8_linear {
namespace {

// Four rows times 16 columns are in assembly, since GCC 12 would spill their sums, ymm0-7; from ymm8 on there is
// a line of weights.
#define ZERO(i) "vpxor %%ymm" #i ", %%ymm" #i ", %%ymm" #i "\n"
#define ADD(from, to) "vpaddd %%ymm" #from ", %%ymm" #to ", %%ymm" #to "\n"
#define STORE(i) "vmovdqa %%ymm" #i ", " #i "*32(%[sums])\n"
#define BEGIN ZERO(0) ZERO(1) ZERO(2) ZERO(3) ZERO(4) ZERO(5) ZERO(6) ZERO(7) ".p2align 5\n 1:\n"
#define END(x_bytes, w_bytes)                                                                                \
  "add $" #x_bytes ", %[x]\n add $" #w_bytes ", %[w]\n dec %[turns]\n jnz 1b\n"                              \
  STORE(0) STORE(1) STORE(2) STORE(3) STORE(4) STORE(5) STORE(6) STORE(7)
#define REGISTERS                                                                                            \
  "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", \
      "xmm13", "xmm14", "xmm15", "memory", "cc"

// x bytes 4r to 4r + 3 and 16 + 4r to 16 + 4r + 3 belong to row r.
#define QUADS(r, S0, S1)                                                                                     \
  "vpbroadcastd " #r "*4(%[x]), %%ymm12\n vpbroadcastd 16+" #r "*4(%[x]), %%ymm13\n"                         \
  "vpmaddubsw %%ymm8, %%ymm12, %%ymm14\n vpmaddubsw %%ymm9, %%ymm12, %%ymm12\n"                              \
  "vpmaddubsw %%ymm10, %%ymm13, %%ymm15\n vpmaddubsw %%ymm11, %%ymm13, %%ymm13\n"                            \
  "vpaddw %%ymm15, %%ymm14, %%ymm14\n vpaddw %%ymm13, %%ymm12, %%ymm12\n"                                    \
  "vpmaddwd (%[one]), %%ymm14, %%ymm14\n vpmaddwd (%[one]), %%ymm12, %%ymm12\n" ADD(14, S0) ADD(12, S1)

LEANMARK_OUTLINE void quads_of_four(const char* x, const int8_t* w, int64_t depth, int32_t* sums) {
  alignas(32) static constexpr int16_t kOne[16] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
  int64_t turns = depth / 8;
  asm volatile(
      BEGIN "vmovdqu (%[w]), %%ymm8\n vmovdqu 32(%[w]), %%ymm9\n vmovdqu 64(%[w]), %%ymm10\n vmovdqu 96(%[w]), %%ymm11\n"
      QUADS(0, 0, 1) QUADS(1, 2, 3) QUADS(2, 4, 5) QUADS(3, 6, 7)
      END(32, 128)
      : [x] "+r"(x), [w] "+r"(w), [turns] "+r"(turns)
      : [sums] "r"(sums), [one] "r"(kOne)
      : REGISTERS);
}

#define PAIRS(at, r, W0, W1, S0, S1)                                                                         \
  "vpbroadcastd " #at "+" #r "*4(%[x]), %%ymm12\n"                                                           \
  "vpmaddubsw %%ymm" #W0 ", %%ymm12, %%ymm13\n vpmaddubsw %%ymm" #W1 ", %%ymm12, %%ymm14\n"                  \
  "vpmaddwd %%ymm15, %%ymm13, %%ymm13\n vpmaddwd %%ymm15, %%ymm14, %%ymm14\n" ADD(13, S0) ADD(14, S1)

LEANMARK_OUTLINE void pairs_of_four(const char* x, const int8_t* w, int64_t depth, int32_t* sums) {
  int64_t turns = depth / 8;
  asm volatile(
      "vpcmpeqw %%ymm15, %%ymm15, %%ymm15\n vpsrlw $15, %%ymm15, %%ymm15\n"
      BEGIN "vmovdqu (%[w]), %%ymm8\n vmovdqu 32(%[w]), %%ymm9\n vmovdqu 64(%[w]), %%ymm10\n vmovdqu 96(%[w]), %%ymm11\n"
      PAIRS(0, 0, 8, 9, 0, 1) PAIRS(0, 1, 8, 9, 2, 3) PAIRS(0, 2, 8, 9, 4, 5) PAIRS(0, 3, 8, 9, 6, 7)
      PAIRS(16, 0, 10, 11, 0, 1) PAIRS(16, 1, 10, 11, 2, 3) PAIRS(16, 2, 10, 11, 4, 5) PAIRS(16, 3, 10, 11, 6, 7)
      END(32, 128)
      : [x] "+r"(x), [w] "+r"(w), [turns] "+r"(turns)
      : [sums] "r"(sums)
      : REGISTERS);
}

// The even values of a line meet x 0 and 2 of a row, the odd ones 1 and 3.
#define WIDE(at, r, W0, W1, S0, S1)                                                                          \
  "vpbroadcastd " #at "+" #r "*8(%[x]), %%ymm12\n"                                                           \
  "vpmaddwd %%ymm" #W0 ", %%ymm12, %%ymm13\n vpmaddwd %%ymm" #W1 ", %%ymm12, %%ymm14\n" ADD(13, S0) ADD(14, S1)
#define WIDE_LINE(at, w)                                                                                     \
  "vmovdqu " #w "(%[w]), %%ymm8\n vmovdqu " #w "+32(%[w]), %%ymm9\n"                                         \
  "vmovdqu " #w "+64(%[w]), %%ymm10\n vmovdqu " #w "+96(%[w]), %%ymm11\n"                                    \
  WIDE(at, 0, 8, 9, 0, 1) WIDE(at, 1, 8, 9, 2, 3) WIDE(at, 2, 8, 9, 4, 5) WIDE(at, 3, 8, 9, 6, 7)            \
  WIDE(at + 4, 0, 10, 11, 0, 1) WIDE(at + 4, 1, 10, 11, 2, 3)                                                \
  WIDE(at + 4, 2, 10, 11, 4, 5) WIDE(at + 4, 3, 10, 11, 6, 7)

LEANMARK_OUTLINE void wide_of_four(const char* x, const int16_t* w, int64_t depth, int32_t* sums) {
  int64_t turns = depth / 8;
  asm volatile(
      BEGIN WIDE_LINE(0, 0) WIDE_LINE(32, 128) END(64, 256)
      : [x] "+r"(x), [w] "+r"(w), [turns] "+r"(turns)
      : [sums] "r"(sums)
      : REGISTERS);
}

// One row: bound by reading the weights, so the compiler's allocation of registers will do.
template <Arithmetic kArithmetic>
LEANMARK_TARGET LEANMARK_OUTLINE void one_row(const char* x, const int8_t* w, int64_t depth, int32_t* sums) {
  const __m256i one = _mm256_set1_epi16(1);
  __m256i totals[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
  for (int64_t k = 0; k < depth; k += 8, w += 128) {
    _mm_prefetch(reinterpret_cast<const char*>(w) + 1536, _MM_HINT_T0);
    _mm_prefetch(reinterpret_cast<const char*>(w) + 1600, _MM_HINT_T0);
    #pragma GCC unroll 2
    for (int v = 0; v < 2; ++v) {
      const __m256i w0 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w + 32 * v));
      const __m256i w1 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w + 64 + 32 * v));
      if constexpr (kArithmetic == Arithmetic::kWide) {
        #pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
          const __m256i line = i < 2 ? w0 : w1;
          const __m256i values = _mm256_srai_epi16(i % 2 ? line : _mm256_slli_epi16(line, 8), 8);
          const __m256i four = _mm256_set1_epi32(load<int32_t>(x + 2 * k + 4 * i));
          totals[v] = _mm256_add_epi32(totals[v], _mm256_madd_epi16(values, four));
        }
      } else {
        const __m256i p0 = _mm256_maddubs_epi16(_mm256_set1_epi32(load<int32_t>(x + k)), w0);
        const __m256i p1 = _mm256_maddubs_epi16(_mm256_set1_epi32(load<int32_t>(x + k + 4)), w1);
        if constexpr (kArithmetic == Arithmetic::kQuads) {
          totals[v] = _mm256_add_epi32(totals[v], _mm256_madd_epi16(_mm256_add_epi16(p0, p1), one));
        } else {
          totals[v] = _mm256_add_epi32(totals[v], _mm256_madd_epi16(p0, one));
          totals[v] = _mm256_add_epi32(totals[v], _mm256_madd_epi16(p1, one));
        }
      }
    }
  }
  _mm256_store_si256(reinterpret_cast<__m256i*>(sums), totals[0]);
  _mm256_store_si256(reinterpret_cast<__m256i*>(sums + 8), totals[1]);
}

struct Avx2 {
  // Both take 16 values at a time and transpose them, groups of four at once; what is left goes one by one.
  template <class From>
  LEANMARK_TARGET static void pack8(const From* const (&rows)[kTileRows], int64_t depth, int64_t padded_depth,
                                    uint8_t* to, int32_t shift) {
    const __m128i shifts = _mm_set1_epi8(static_cast<char>(shift));
    const int64_t whole = depth / 16 * 16;
    for (int64_t k = 0; k < whole; k += 16, to += 64) {
      __m128i x[kTileRows];
      #pragma GCC unroll 4
      for (int r = 0; r < kTileRows; ++r) x[r] = _mm_sub_epi8(read16(rows[r] + k), shifts);
      const __m128i low01 = _mm_unpacklo_epi32(x[0], x[1]), high01 = _mm_unpackhi_epi32(x[0], x[1]);
      const __m128i low23 = _mm_unpacklo_epi32(x[2], x[3]), high23 = _mm_unpackhi_epi32(x[2], x[3]);
      store(_mm_unpacklo_epi64(low01, low23), to);
      store(_mm_unpackhi_epi64(low01, low23), to + 16);
      store(_mm_unpacklo_epi64(high01, high23), to + 32);
      store(_mm_unpackhi_epi64(high01, high23), to + 48);
    }
    const From* const rest[] = {rows[0] + whole, rows[1] + whole, rows[2] + whole, rows[3] + whole};
    pack_rows(rest, depth - whole, padded_depth - whole, to, shift);
  }

  template <class From>
  LEANMARK_TARGET static void pack16(const From* const (&rows)[kTileRows], int64_t depth, int64_t padded_depth,
                                     int16_t* to) {
    const int64_t whole = depth / 16 * 16;
    for (int64_t k = 0; k < whole; k += 16, to += 64) {
      __m256i x[kTileRows];
      #pragma GCC unroll 4
      for (int r = 0; r < kTileRows; ++r) {
        const __m128i narrow = read16(rows[r] + k);
        const __m256i wide = std::is_signed_v<From> ? _mm256_cvtepi8_epi16(narrow) : _mm256_cvtepu8_epi16(narrow);
        x[r] = _mm256_shufflehi_epi16(_mm256_shufflelo_epi16(wide, 0xd8), 0xd8);
      }
      const __m256i even01 = _mm256_unpacklo_epi64(x[0], x[1]), odd01 = _mm256_unpackhi_epi64(x[0], x[1]);
      const __m256i even23 = _mm256_unpacklo_epi64(x[2], x[3]), odd23 = _mm256_unpackhi_epi64(x[2], x[3]);
      store(_mm256_permute2x128_si256(even01, even23, 0x20), to);
      store(_mm256_permute2x128_si256(odd01, odd23, 0x20), to + 16);
      store(_mm256_permute2x128_si256(even01, even23, 0x31), to + 32);
      store(_mm256_permute2x128_si256(odd01, odd23, 0x31), to + 48);
    }
    const From* const rest[] = {rows[0] + whole, rows[1] + whole, rows[2] + whole, rows[3] + whole};
    pack_rows(rest, depth - whole, padded_depth - whole, to, 0);
  }

  // The even values of a line, then the odd ones.
  LEANMARK_TARGET static void widen(const int8_t* w, int64_t depth, int16_t* to) {
    for (int64_t k = 0; k < depth; k += 4, w += 64, to += 64) {
      #pragma GCC unroll 2
      for (int v = 0; v < 2; ++v) {
        const __m256i line = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w + 32 * v));
        store(_mm256_srai_epi16(_mm256_slli_epi16(line, 8), 8), to + 16 * v);
        store(_mm256_srai_epi16(line, 8), to + 32 + 16 * v);
      }
    }
  }

  template <int kRows>
  LEANMARK_TARGET static void products(Arithmetic arithmetic, const char* x, const int8_t* w, const int16_t* wide,
                                       int64_t depth, int32_t* sums) {
    constexpr bool kOne = kRows == 1;
    if (depth == 0) {
      std::memset(sums, 0, kRows * kPanelWidth * sizeof(int32_t));
    } else if (arithmetic == Arithmetic::kQuads) {
      kOne ? one_row<Arithmetic::kQuads>(x, w, depth, sums) : quads_of_four(x, w, depth, sums);
    } else if (arithmetic == Arithmetic::kPairs) {
      kOne ? one_row<Arithmetic::kPairs>(x, w, depth, sums) : pairs_of_four(x, w, depth, sums);
    } else {
      kOne ? one_row<Arithmetic::kWide>(x, w, depth, sums) : wide_of_four(x, wide, depth, sums);
    }
  }

 private:
  template <class From>
  LEANMARK_TARGET static __m128i read16(const From* from) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  }
};

LEANMARK_TARGET void pack_tiles(const Plan& p, int64_t begin, int64_t end) { pack<Avx2>(p, begin, end); }

LEANMARK_TARGET void multiply_items(const Plan& p, int64_t begin, int64_t end) { multiply<Avx2>(p, begin, end); }

}  // namespace

const Kernel& kernel_avx2() {
  static constexpr Kernel kernel = by_limits(pack_tiles, multiply_items);
  return kernel;
}

}  // namespace leanmark::int8_linear
