// Exact 8-bit Winograd convolution for AVX2. Without FMA, so that no rounding step is fused.
#define LEANMARK_TARGET __attribute__((target("avx2")))

#include <type_traits>

#include "cpu/int8_winograd/kernel.h"

namespace leanmark::int8_winograd {
namespace {

// Four tiles times 16 channels, ymm0-7, in assembly, since GCC 12 would spill them; ymm8-11 are a line of weights.
#define ZERO(i) "vpxor %%ymm" #i ", %%ymm" #i ", %%ymm" #i "\n"
#define ROW(at, x, W0, W1, S0, S1)                                                                           \
  "vpbroadcastd " #at "(" x "), %%ymm12\n"                                                                   \
  "vpmaddwd %%ymm" #W0 ", %%ymm12, %%ymm13\n vpmaddwd %%ymm" #W1 ", %%ymm12, %%ymm14\n"                      \
  "vpaddd %%ymm13, %%ymm" #S0 ", %%ymm" #S0 "\n vpaddd %%ymm14, %%ymm" #S1 ", %%ymm" #S1 "\n"
#define STEP(at, W0, W1)                                                                                     \
  ROW(at, "%[x]", W0, W1, 0, 1) ROW(at, "%[x],%[stride]", W0, W1, 2, 3)                                      \
  ROW(at, "%[x],%[stride],2", W0, W1, 4, 5) ROW(at, "%[x3]", W0, W1, 6, 7)
#define STORE(S0, S1)                                                                                        \
  "vpaddd (%[from]), %%ymm" #S0 ", %%ymm" #S0 "\n vpaddd 32(%[from]), %%ymm" #S1 ", %%ymm" #S1 "\n"         \
  "vmovdqu %%ymm" #S0 ", (%[to])\n vmovdqu %%ymm" #S1 ", 32(%[to])\n"
#define NEXT "add %[from_stride], %[from]\n add $128, %[to]\n"

struct Avx2 {
  static constexpr int kLanes = 8;

  static LEANMARK_INLINE Vector<kLanes> rounded(Vector<kLanes> product) { return product; }

  template <class From>
  static LEANMARK_INLINE Short<Avx2> widen(const From* from) {
    struct Narrow {  // of bytes, since `from` may lie anywhere
      From values[2 * kLanes];
    };
    const auto& narrow = *reinterpret_cast<const Narrow*>(from);
    Short<Avx2> wide;
    if constexpr (std::is_signed_v<From>) {
      asm("vpmovsxbw %1, %0" : "=x"(wide) : "m"(narrow));
    } else {
      asm("vpmovzxbw %1, %0" : "=x"(wide) : "m"(narrow));
    }
    return wide;
  }

  static LEANMARK_INLINE void multiply(const Product& of) {
    for (int64_t panel = 0; panel < of.panels; ++panel) {
      for (int64_t tile = 0; tile < of.tiles; tile += kTileStep) {
        step(of, of.x + tile * of.x_stride, of.w + panel * kPairs * kPairWidth,
             of.from + tile * of.from_stride + panel * kPanelWidth, of.to + tile * kOutStride + panel * kPanelWidth);
      }
    }
  }

  static LEANMARK_INLINE void step(const Product& of, const int16_t* x, const int16_t* w, const int32_t* from,
                                   int32_t* to) {
    const int16_t* x3 = x + 3 * of.x_stride;
    int64_t turns = of.pairs / 2;
    asm volatile(
        ZERO(0) ZERO(1) ZERO(2) ZERO(3) ZERO(4) ZERO(5) ZERO(6) ZERO(7)
        ".p2align 5\n 1:\n"
        "vmovdqu (%[w]), %%ymm8\n vmovdqu 32(%[w]), %%ymm9\n vmovdqu 64(%[w]), %%ymm10\n vmovdqu 96(%[w]), %%ymm11\n"
        STEP(0, 8, 9) STEP(4, 10, 11)
        "add $8, %[x]\n add $8, %[x3]\n add $128, %[w]\n dec %[turns]\n jnz 1b\n"
        STORE(0, 1) NEXT STORE(2, 3) NEXT STORE(4, 5) NEXT STORE(6, 7)
        : [x] "+r"(x), [x3] "+r"(x3), [w] "+r"(w), [turns] "+r"(turns), [from] "+r"(from), [to] "+r"(to)
        : [stride] "r"(of.x_stride * 2), [from_stride] "r"(of.from_stride * 4)
        : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12",
          "xmm13", "xmm14", "memory", "cc");
  }
};

static_assert(kOutStride * sizeof(int32_t) == 128);

LEANMARK_TARGET void inputs(const Plan& p, const Block& block, int64_t begin, int64_t end) {
  transform_inputs<Avx2>(p, block, begin, end);
}

LEANMARK_TARGET void products(const Plan& p, const Block& block, int64_t begin, int64_t end) {
  multiply<Avx2>(p, block, begin, end);
}

}  // namespace

const Phases& phases_avx2() {
  static constexpr Phases phases{inputs, products};
  return phases;
}

}  // namespace leanmark::int8_winograd
