// Exact 8-bit Winograd convolution for any CPU.
#include "cpu/int8_winograd/kernel.h"

namespace leanmark::int8_winograd {
namespace {

struct Portable {
  static constexpr int kLanes = 8;

  static LEANMARK_INLINE Vector<kLanes> rounded(Vector<kLanes> product) { return product; }

  template <class From>
  static LEANMARK_INLINE Short<Portable> widen(const From* from) {
    Short<Portable> wide;
    for (int lane = 0; lane < 2 * kLanes; ++lane) wide[lane] = from[lane];
    return wide;
  }

  static void multiply(const Product& of) {
    for (int64_t i = 0; i < of.tiles * of.panels; ++i) {
      const int64_t row = i / of.panels, panel = i % of.panels;
      const int16_t* x = of.x + row * of.x_stride;
      uint32_t totals[kPanelWidth];
      std::memcpy(totals, of.from + row * of.from_stride + panel * kPanelWidth, sizeof(totals));
      for (int64_t k = 0; k < 2 * of.pairs; ++k) {
        const int16_t* w = of.w + (panel * kPairs + k / 2) * kPairWidth + k % 2;
        for (int c = 0; c < kPanelWidth; ++c) totals[c] += static_cast<uint32_t>(x[k] * w[2 * c]);
      }
      std::memcpy(of.to + row * kOutStride + panel * kPanelWidth, totals, sizeof(totals));
    }
  }
};

void inputs(const Plan& p, const Block& block, int64_t begin, int64_t end) {
  transform_inputs<Portable>(p, block, begin, end);
}

void products(const Plan& p, const Block& block, int64_t begin, int64_t end) {
  multiply<Portable>(p, block, begin, end);
}

}  // namespace

const Phases& phases_portable() {
  static constexpr Phases phases{inputs, products};
  return phases;
}

}  // namespace leanmark::int8_winograd
