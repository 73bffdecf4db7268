// Exact 8-bit Winograd convolution for AVX-512 with VNNI.
#include "cpu/avx512vnni/int8_sums.h"

#include <type_traits>

#include "cpu/int8_winograd/kernel.h"

namespace leanmark::int8_winograd {
namespace {

using Tiles = void (*)(const Product&, int64_t tile);

template <int kRows, int kPanels>
LEANMARK_TARGET LEANMARK_OUTLINE void tiles(const Product& of, int64_t tile) {
  Int8Sums<Words, kRows, kPanels> sums;
  constexpr int64_t kBytes = sizeof(int16_t);
  sums.add_all(of.x + tile * of.x_stride, of.x_stride * kBytes, of.w, kPairs * kPairWidth * kBytes, of.pairs);
  const int32_t* from = of.from + tile * of.from_stride;
  int32_t* to = of.to + tile * kOutStride;
  #pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
    #pragma GCC unroll 2
    for (int v = 0; v < kPanels; ++v) {
      const __m512i before = _mm512_loadu_si512(from + r * of.from_stride + v * kPanelWidth);
      _mm512_storeu_si512(to + r * kOutStride + v * kPanelWidth, _mm512_add_epi32(before, sums.sums[0][r][v]));
    }
  }
}

constexpr int64_t kMostSteps = 3;

template <int kPanels>
Tiles tiles_for(int64_t steps) {
  constexpr Tiles all[] = {tiles<kTileStep, kPanels>, tiles<2 * kTileStep, kPanels>, tiles<3 * kTileStep, kPanels>};
  return all[steps - 1];
}

struct Avx512Vnni {
  static constexpr int kLanes = 16;

  static LEANMARK_INLINE Vector<kLanes> rounded(Vector<kLanes> product) {
    asm("" : "+v"(product));
    return product;
  }

  template <class From>
  static LEANMARK_INLINE Short<Avx512Vnni> widen(const From* from) {
    struct Narrow {  // of bytes, since `from` may lie anywhere
      From values[2 * kLanes];
    };
    const auto& narrow = *reinterpret_cast<const Narrow*>(from);
    Short<Avx512Vnni> wide;
    if constexpr (std::is_signed_v<From>) {
      asm("vpmovsxbw %1, %0" : "=v"(wide) : "m"(narrow));
    } else {
      asm("vpmovzxbw %1, %0" : "=v"(wide) : "m"(narrow));
    }
    return wide;
  }

  static LEANMARK_INLINE void multiply(const Product& of) {
    const int64_t all = (of.tiles + kTileStep - 1) / kTileStep, turns = (all + kMostSteps - 1) / kMostSteps;
    for (int64_t turn = 0; turn < turns; ++turn) {
      const int64_t step = all * turn / turns, steps = all * (turn + 1) / turns - step;
      (of.panels == 2 ? tiles_for<2>(steps) : tiles_for<1>(steps))(of, step * kTileStep);
    }
  }
};

LEANMARK_TARGET void products(const Plan& p, const Block& block, int64_t begin, int64_t end) {
  multiply<Avx512Vnni>(p, block, begin, end);
}

LEANMARK_TARGET void inputs(const Plan& p, const Block& block, int64_t begin, int64_t end) {
  transform_inputs<Avx512Vnni>(p, block, begin, end);
}

}  // namespace

const Phases& phases_avx512vnni() {
  static constexpr Phases phases{inputs, products};
  return phases;
}

}  // namespace leanmark::int8_winograd
