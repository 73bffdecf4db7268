// Exact 8-bit Winograd convolution for AVX-512 with VNNI: its products only. The transforms are those of AVX2,
// which are bound by memory, and must not fuse steps of rounding as AVX-512 would.
#include <algorithm>

#include "cpu/avx512vnni/int8_sums.h"
#include "cpu/int8_winograd/plan.h"

namespace leanmark::int8_winograd {
namespace {

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

template <int kPanels>
Tiles tiles_for(int64_t steps) {
  constexpr Tiles all[] = {tiles<kTileStep, kPanels>, tiles<2 * kTileStep, kPanels>, tiles<3 * kTileStep, kPanels>};
  return all[steps - 1];
}

void products(const Plan& p, const Block& block, int64_t begin, int64_t end) {
  for (int64_t item = begin; item < end;) {
    const int64_t point = item / p.panels, panel = item % p.panels;
    const int64_t panels = std::min({int64_t{2}, p.panels - panel, end - item});
    const int16_t* w = p.weight + item * p.depth * kPanelWidth;
    const int16_t* x = block.inputs + point * p.in_point_stride;
    int32_t* to = block.outputs + point * p.out_point_stride + panel * kPanelWidth;
    for (int64_t tile = 0; tile < block.tiles;) {
      const int64_t steps = std::min<int64_t>(3, (block.tiles - tile + kTileStep - 1) / kTileStep);
      const Tiles take = panels == 2 ? tiles_for<2>(steps) : tiles_for<1>(steps);
      take(p, x + tile * p.in_stride, w, to + tile * p.out_stride);
      tile += steps * kTileStep;
    }
    item += panels;
  }
}

}  // namespace

const Phases& phases_avx512vnni() {
  static const Phases phases{phases_avx2().transform_inputs, products, phases_avx2().transform_outputs};
  return phases;
}

}  // namespace leanmark::int8_winograd
