// Linear layers with 4-bit weights and 8-bit activations for any CPU.
#include "cpu/w4a8_linear/kernel.h"

namespace leanmark::w4a8_linear {
namespace {

struct Portable {
  static constexpr int kLanes = 4;

  static constexpr int panels(int) { return 1; }

  static int32_t offset(const PairSums&) { return 0; }  // products() takes 8 off every weight

  static uint32_t largest(const float* from, int64_t count) {
    uint32_t largest = 0;
    for (int64_t i = 0; i < count; ++i) {
      uint32_t bits;
      std::memcpy(&bits, from + i, sizeof(bits));
      largest = std::max(largest, bits & 0x7fffffffu);
    }
    return largest;
  }

  static PairSums chunk(const float* from, float inverse, int8_t* to, int64_t stride) {
    PairSums sums{0, 0};
    for (int k = 0; k < kChunk; ++k) {
      // Not finite times 0 is NaN, which has no integer.
      const int value = inverse == 0.0f ? 0 : static_cast<int>(std::nearbyint(from[k] * inverse));
      to[k / 4 * stride + k % 4] = static_cast<int8_t>(value);
      (k % 4 < 2 ? sums.low : sums.high) += value;
    }
    return sums;
  }

  template <int kRows, int>
  static void products(const Tile& tile, const Panel& panel, float* sums) {
    const float* scale = panel.scale;
    const int8_t* x = tile.values;
    const uint8_t* w = panel.weight;
    for (int64_t span = 0; span < panel.groups * panel.spans_per_group; ++span) {
      for (int r = 0; r < kRows; ++r) {
        int32_t dots[kPanelWidth] = {};
        for (int64_t k = 0; k < panel.span; k += kStep) {
          line(x + k * kRows + 4 * r, 4 * kRows, w + k * (kPanelWidth / 2), dots);
        }
        const float factor = tile.scales[span * kRows + r];
        for (int c = 0; c < kPanelWidth; ++c) {
          sums[r * kPanelWidth + c] += factor * scale[c] * static_cast<float>(dots[c]);
        }
      }
      x += panel.span * kRows;
      w += panel.span * (kPanelWidth / 2);
      if ((span + 1) % panel.spans_per_group == 0) scale += kPanelWidth;
    }
  }

 private:
  static void line(const int8_t* x, int64_t stride, const uint8_t* w, int32_t* dots) {
    for (int c = 0; c < kPanelWidth; ++c) {
      for (int u = 0; u < 4; ++u) {
        const int both = w[4 * c + u];
        dots[c] += x[u] * ((both & 15) - 8) + x[stride + u] * ((both >> 4) - 8);
      }
    }
  }
};

void quantize_tiles(const Plan& p, int64_t begin, int64_t end) { quantize<Portable>(p, begin, end); }

void multiply_items(const Plan& p, int64_t begin, int64_t end) { multiply<Portable>(p, begin, end); }

}  // namespace

const Kernel& kernel_portable() {
  static constexpr Kernel kernel{quantize_tiles, multiply_items};
  return kernel;
}

}  // namespace leanmark::w4a8_linear
