// Windows times panels, with bias, residual and activation in registers, for any vector width.
#pragma once

#include <algorithm>

#include "cpu/direct_conv2d/plan.h"
#include "cpu/panels.h"
#include "cpu/vector.h"

namespace leanmark::direct_conv2d {

// kRows pixels from `pixel` on, kPanels panels.
template <int kLanes, int kRows, int kPanels>
LEANMARK_TARGET LEANMARK_OUTLINE void tile(const Plan& p, const Pixels& pixels, int64_t pixel, int64_t panel) {
  using V = Vector<kLanes>;
  const int64_t row_of_weights = p.depth * kPanelWidth, stride = p.kernel_height * row_of_weights;
  const float *a = pixels.input + pixel * p.window_stride, *b = p.weight + panel * stride;
  Product<Float32Panel, kLanes, kRows, kPanels> product;
  product.clear();
  for (int64_t row = 0; row < p.kernel_height; ++row) {
    product.template add<false>(a, p.window_stride, b, stride, p.depth, 0);
    a += p.row_stride;
    b += row_of_weights;
  }
  #pragma GCC unroll 16
  for (int v = 0; v < product.kVectors; ++v) {
    const int64_t column = panel * kPanelWidth + v * kLanes;
    const int64_t lanes = std::min<int64_t>(kLanes, p.out_channels - column);
    if (lanes <= 0) return;
    const bool whole = lanes == kLanes;
    V bias = {};
    if (p.bias) bias = whole ? load<V>(p.bias + column) : load_first<V>(p.bias + column, lanes);
    #pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const int64_t at = (pixel + r) * p.out_channels + column;
      V value = product.sums[r][v] + bias;
      if (pixels.residual) {
        value += whole ? load<V>(pixels.residual + at) : load_first<V>(pixels.residual + at, lanes);
      }
      value = clamp(value, p.kept.low, p.kept.high);
      if (whole) {
        store(value, pixels.output + at);
      } else {
        store_first(value, pixels.output + at, lanes);
      }
    }
  }
}

template <int kLanes, int kRows, int kPanels>
LEANMARK_INLINE void tile_of(int64_t rows, const Plan& p, const Pixels& pixels, int64_t pixel, int64_t panel) {
  if constexpr (kRows > 1) {
    if (rows < kRows) return tile_of<kLanes, kRows - 1, kPanels>(rows, p, pixels, pixel, panel);
  }
  tile<kLanes, kRows, kPanels>(p, pixels, pixel, panel);
}

// kMostRows x kPanels: enough sums to keep the multipliers busy, few enough for the registers.
template <int kLanes, int kMostRows, int kPanels>
LEANMARK_INLINE void run(const Plan& p, const Pixels& pixels, int64_t begin, int64_t end) {
  for (int64_t panel = begin; panel < end; panel += kPanels) {
    RowTiles split(pixels.count, kMostRows);
    for (int64_t pixel = 0; pixel < pixels.count;) {
      const int64_t rows = split.next();
      if (panel + kPanels <= end) {
        tile_of<kLanes, kMostRows, kPanels>(rows, p, pixels, pixel, panel);
      } else {
        tile_of<kLanes, kMostRows, 1>(rows, p, pixels, pixel, panel);
      }
      pixel += rows;
    }
  }
}

}  // namespace leanmark::direct_conv2d
