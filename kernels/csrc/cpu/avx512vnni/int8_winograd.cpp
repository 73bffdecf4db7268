// Exact 8-bit Winograd convolution for AVX-512 with VNNI.
#include "cpu/avx512vnni/int8_sums.h"

#include <algorithm>
#include <type_traits>

#include "cpu/int8_winograd/kernel.h"

namespace leanmark::int8_winograd {
namespace {

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
};

using Tiles = void (*)(const Plan&, const int16_t* x, const int16_t* w, int32_t* to);

template <int kRows, int kPanels>
LEANMARK_TARGET LEANMARK_OUTLINE void tiles(const Plan& p, const int16_t* x, const int16_t* w, int32_t* to) {
  Int8Sums<Words, kRows, kPanels> of;
  const int64_t panel_bytes = p.depth * kPanelWidth * int64_t(sizeof(int16_t));
  of.add_all(x, p.in_stride * int64_t(sizeof(int16_t)), w, panel_bytes, p.depth / 2);
  #pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
    #pragma GCC unroll 2
    for (int v = 0; v < kPanels; ++v) _mm512_storeu_si512(to + r * p.out_stride + v * kPanelWidth, of.sums[0][r][v]);
  }
}

constexpr int64_t kMostSteps = 3;

template <int kPanels>
Tiles tiles_for(int64_t steps) {
  constexpr Tiles all[] = {tiles<kTileStep, kPanels>, tiles<2 * kTileStep, kPanels>, tiles<3 * kTileStep, kPanels>};
  return all[steps - 1];
}

void products(const Plan& p, const Block& block, int64_t begin, int64_t end) {
  const int64_t all = (block.tiles + kTileStep - 1) / kTileStep, turns = (all + kMostSteps - 1) / kMostSteps;
  for (int64_t item = begin; item < end;) {
    const int64_t point = item / p.panels, panel = item % p.panels;
    const int64_t panels = std::min({int64_t{2}, p.panels - panel, end - item});
    const int16_t* w = p.weight + item * p.depth * kPanelWidth;
    const int16_t* x = block.inputs + point * p.in_point_stride;
    int32_t* to = block.outputs + point * p.out_point_stride + panel * kPanelWidth;
    for (int64_t turn = 0; turn < turns; ++turn) {
      const int64_t step = all * turn / turns, steps = all * (turn + 1) / turns - step;
      const Tiles take = panels == 2 ? tiles_for<2>(steps) : tiles_for<1>(steps);
      take(p, x + step * kTileStep * p.in_stride, w, to + step * kTileStep * p.out_stride);
    }
    item += panels;
  }
}

LEANMARK_TARGET void inputs(const Plan& p, const Block& block, int64_t begin, int64_t end) {
  transform_inputs<Avx512Vnni>(p, block, begin, end);
}

LEANMARK_TARGET void outputs(const Plan& p, const Block& block, int64_t begin, int64_t end) {
  transform_outputs<Avx512Vnni>(p, block, begin, end);
}

}  // namespace

const Phases& phases_avx512vnni() {
  static constexpr Phases phases{inputs, products, outputs};
  return phases;
}

}  // namespace leanmark::int8_winograd
