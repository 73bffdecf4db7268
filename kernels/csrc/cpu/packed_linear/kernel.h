// Rows of activations times packed weights, with scale, bias and ReLU in registers, for any vector width.
#pragma once

#include "cpu/packed_linear/plan.h"
#include "cpu/panels.h"
#include "cpu/vector.h"

namespace leanmark::packed_linear {

// How many rows share one pass over a panel, and how many panels one pass takes: enough sums to keep the
// multipliers busy, few enough for the registers.
template <int kLanes>
struct Tiling;

template <>
struct Tiling<4> {
  static constexpr int kMostRows = 2;
  static constexpr int panels(int) { return 1; }
};

template <>
struct Tiling<8> {
  static constexpr int kMostRows = 6;
  static constexpr int panels(int rows) { return rows == 1 ? 4 : rows <= 3 ? 2 : 1; }
};

template <>
struct Tiling<16> {
  static constexpr int kMostRows = 8;
  static constexpr int panels(int rows) { return rows == 1 ? 8 : rows <= 5 ? 4 : 2; }
};

constexpr int64_t kAheadBytes = 1024;  // far enough for memory, near enough for L1

// Scale, bias, residual and activation on the way from `sums` [rows, width] to the output.
template <int kLanes>
LEANMARK_INLINE void finish(const Plan& p, const float* sums, int64_t rows, int64_t width, int64_t row,
                            int64_t first) {
  using V = Vector<kLanes>;
  const int64_t columns = std::min(width, p.columns - first);
  const V most = V{} + p.most;
  for (int64_t c = 0; c < columns; c += kLanes) {
    const int64_t column = first + c, lanes = std::min<int64_t>(kLanes, columns - c);
    const bool whole = lanes == kLanes;
    V scale = V{} + 1.0f, bias = {};
    if (p.scale) scale = whole ? load<V>(p.scale + column) : load_first<V>(p.scale + column, lanes);
    if (p.bias) bias = whole ? load<V>(p.bias + column) : load_first<V>(p.bias + column, lanes);
    for (int64_t r = 0; r < rows; ++r) {
      V value = load<V>(sums + r * width + c) * scale + bias;
      const int64_t at = (row + r) * p.columns + column;
      if (p.residual) value += whole ? load<V>(p.residual + at) : load_first<V>(p.residual + at, lanes);
      if (p.relu) value = relu(value);
      value = value > most ? most : value;
      float* to = p.output + at;
      if (whole) {
        store(value, to);
      } else {
        store_first(value, to, lanes);
      }
    }
  }
}

template <class Panel, int kLanes, int kRows, int kPanels>
LEANMARK_TARGET LEANMARK_OUTLINE void tile(const Plan& p, int64_t row, int64_t panel) {
  constexpr int kWidth = kPanels * kPanelWidth;
  const int64_t stride = Panel::rows(p.depth) * kPanelWidth;
  const auto* b = static_cast<const typename Panel::Value*>(p.weight) + panel * stride;
  Product<Panel, kLanes, kRows, kPanels> product;
  product.template run<true>(p.input + row * p.input_stride, p.input_stride, b, stride, p.depth,
                             kAheadBytes / int64_t(sizeof(typename Panel::Value)));
  alignas(64) float sums[kRows * kWidth];
  product.store_to(sums, kWidth);
  finish<kLanes>(p, sums, kRows, kWidth, row, panel * kPanelWidth);
}

// `panels` panels of `rows` rows, at most kRows of them.
template <class Panel, int kLanes, int kRows>
LEANMARK_INLINE void tiles(const Plan& p, int64_t rows, int64_t row, int64_t panel, int64_t panels) {
  if constexpr (kRows > 1) {
    if (rows < kRows) return tiles<Panel, kLanes, kRows - 1>(p, rows, row, panel, panels);
  }
  constexpr int kPanels = Tiling<kLanes>::panels(kRows);
  const int64_t end = panel + panels;
  for (; panel + kPanels <= end; panel += kPanels) tile<Panel, kLanes, kRows, kPanels>(p, row, panel);
  if constexpr (kPanels > 1) {
    for (; panel < end; ++panel) tile<Panel, kLanes, kRows, 1>(p, row, panel);
  }
}

template <int kLanes>
constexpr int64_t panels_at_once(int64_t rows) {
  const int64_t most = Tiling<kLanes>::kMostRows;
  return Tiling<kLanes>::panels(int(std::min(most, rows)));
}

template <class Panel, int kLanes>
LEANMARK_INLINE void run(const Plan& p, int64_t begin, int64_t end) {
  const int64_t at_once = panels_at_once<kLanes>(p.rows);
  for (int64_t panel = begin; panel < end; panel += at_once) {
    RowTiles split(p.rows, Tiling<kLanes>::kMostRows);
    for (int64_t row = 0; row < p.rows;) {
      const int64_t rows = split.next();
      tiles<Panel, kLanes, Tiling<kLanes>::kMostRows>(p, rows, row, panel, std::min(at_once, end - panel));
      row += rows;
    }
  }
}

namespace {  // of its own for every instruction set

template <class Panel, int kLanes>
LEANMARK_TARGET void panels(const Plan& p, int64_t begin, int64_t end) {
  run<Panel, kLanes>(p, begin, end);
}

template <int kLanes>
Kernel kernel_of(Weights weights, int64_t rows) {
  const int64_t at_once = panels_at_once<kLanes>(rows);
  if (weights == Weights::kInt8) return {panels<Int8Panel, kLanes>, at_once};
  if (weights == Weights::kFloat16) return {panels<Float16Panel, kLanes>, at_once};
  if (weights == Weights::kBFloat16) return {panels<BFloat16Panel, kLanes>, at_once};
  return {panels<Float32Panel, kLanes>, at_once};
}

}  // namespace
}  // namespace leanmark::packed_linear
