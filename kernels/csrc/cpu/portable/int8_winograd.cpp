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

  // Sums wrap around as those of the vector units do: a point's may, the output's do not.
  static void multiply(const int16_t* x, int64_t x_stride, const int16_t* w, int64_t depth, int32_t* to,
                       int64_t to_stride) {
    for (int64_t r = 0; r < kTileStep; ++r) {
      uint32_t totals[kPanelWidth] = {};
      for (int64_t k = 0; k < depth; ++k) {
        const int16_t* pairs = w + k / 2 * 2 * kPanelWidth + k % 2;
        for (int c = 0; c < kPanelWidth; ++c) totals[c] += static_cast<uint32_t>(x[r * x_stride + k] * pairs[2 * c]);
      }
      std::memcpy(to + r * to_stride, totals, sizeof(totals));
    }
  }
};

void inputs(const Plan& p, const Block& block, int64_t begin, int64_t end) {
  transform_inputs<Portable>(p, block, begin, end);
}

void products(const Plan& p, const Block& block, int64_t begin, int64_t end) {
  multiply<Portable>(p, block, begin, end);
}

void outputs(const Plan& p, const Block& block, int64_t begin, int64_t end) {
  transform_outputs<Portable>(p, block, begin, end);
}

}  // namespace

const Phases& phases_portable() {
  static constexpr Phases phases{inputs, products, outputs};
  return phases;
}

}  // namespace leanmark::int8_winograd
