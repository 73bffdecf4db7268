// One or two rows of a depthwise convolution, for any vector width.
#pragma once

#include <algorithm>

#include "cpu/depthwise/plan.h"
#include "cpu/vector.h"

namespace leanmark::depthwise {

// kRows x kColumns outputs of one vector of channels; all columns of the window lie within the image.
template <int kLanes, int kStride, int kRows, int kColumns>
struct Tile {
  static constexpr int kWide = (kColumns - 1) * kStride + 3;

  using V = Vector<kLanes>;
  V sums[kRows][kColumns];

  LEANMARK_INLINE void start(V bias) {
    #pragma GCC unroll 2
    for (int r = 0; r < kRows; ++r) {
      #pragma GCC unroll 8
      for (int c = 0; c < kColumns; ++c) sums[r][c] = bias;
    }
  }

  // Input row kRow, at the window's first column.
  template <int kRow>
  LEANMARK_INLINE void add_row(const float* x, const float* weight, int64_t channels) {
    if (x == nullptr) return;
    V pixels[kWide];
    #pragma GCC unroll 16
    for (int i = 0; i < kWide; ++i) pixels[i] = load<V>(x + i * channels);
    #pragma GCC unroll 2
    for (int r = 0; r < kRows; ++r) {
      constexpr int kTaps = 3;
      const int tap = kRow - r * kStride;
      if (tap < 0 || tap >= kTaps) continue;
      #pragma GCC unroll 3
      for (int k = 0; k < kTaps; ++k) {
        const V w = load<V>(weight + (tap * kTaps + k) * channels);
        #pragma GCC unroll 8
        for (int c = 0; c < kColumns; ++c) sums[r][c] += pixels[c * kStride + k] * w;
      }
    }
  }
};

// kColumns outputs from column `at` on, for channels [begin, end), whole vectors of them.
template <int kLanes, int kStride, int kRows, int kColumns>
LEANMARK_TARGET LEANMARK_OUTLINE void inner(const Plan& p, const Rows& rows, int64_t at, int64_t begin,
                                            int64_t end) {
  using V = Vector<kLanes>;
  constexpr int kIn = (kRows - 1) * kStride + 3;
  const int64_t channels = p.channels, corner = (at * kStride - p.padding) * channels, to = at * channels;
  const float low = p.kept.low, high = p.kept.high;
  const float *weight = p.weight, *bias = p.bias;
  const float* x[4];
  for (int i = 0; i < kIn; ++i) x[i] = rows.input[i] ? rows.input[i] + corner : nullptr;
  const auto from = [&](int row, int64_t c) __attribute__((always_inline)) {
    return x[row] ? x[row] + c : nullptr;
  };
  for (int64_t c = begin; c < end; c += kLanes) {
    Tile<kLanes, kStride, kRows, kColumns> tile;
    tile.start(bias ? load<V>(bias + c) : V{});
    tile.template add_row<0>(from(0, c), weight + c, channels);
    tile.template add_row<1>(from(1, c), weight + c, channels);
    tile.template add_row<2>(from(2, c), weight + c, channels);
    if constexpr (kIn > 3) tile.template add_row<3>(from(3, c), weight + c, channels);
    #pragma GCC unroll 2
    for (int r = 0; r < kRows; ++r) {
      #pragma GCC unroll 8
      for (int i = 0; i < kColumns; ++i) {
        store(clamp(tile.sums[r][i], low, high), rows.output[r] + to + i * channels + c);
      }
    }
  }
}

// The pixels under one output's window that lie within the image, and their weights.
struct Taps {
  const float *pixels[9], *weights[9];
  int count = 0;

  Taps(const Plan& p, const float* const* input, int64_t left) {
    for (int tap = 0; tap < 9; ++tap) {
      const int64_t column = left + tap % 3;
      if (input[tap / 3] == nullptr || column < 0 || column >= p.width) continue;
      pixels[count] = input[tap / 3] + column * p.channels;
      weights[count++] = p.weight + tap * p.channels;
    }
  }
};

// One column of outputs, wherever its window lies, for channels [begin, end).
template <int kLanes, int kStride, int kRows>
LEANMARK_TARGET LEANMARK_OUTLINE void border(const Plan& p, const Rows& rows, int64_t at, int64_t begin,
                                             int64_t end) {
  using V = Vector<kLanes>;
  for (int r = 0; r < kRows; ++r) {
    const Taps taps(p, rows.input + r * kStride, at * kStride - p.padding);
    float* to = rows.output[r] + at * p.channels;
    int64_t c = begin;
    for (; c + kLanes <= end; c += kLanes) {
      V sum = p.bias ? load<V>(p.bias + c) : V{};
      for (int i = 0; i < taps.count; ++i) sum += load<V>(taps.pixels[i] + c) * load<V>(taps.weights[i] + c);
      store(clamp(sum, p.kept.low, p.kept.high), to + c);
    }
    if (c == end) continue;
    V sum = p.bias ? load_first<V>(p.bias + c, end - c) : V{};
    for (int i = 0; i < taps.count; ++i) {
      sum += load_first<V>(taps.pixels[i] + c, end - c) * load_first<V>(taps.weights[i] + c, end - c);
    }
    store_first(clamp(sum, p.kept.low, p.kept.high), to + c, end - c);
  }
}

template <int kLanes, int kStride, int kRows, int kColumns>
LEANMARK_INLINE void rows_of_channels(const Plan& p, const Rows& rows, int64_t begin, int64_t end) {
  // Outputs whose window lies within the image.
  const int64_t first = std::min(p.out_width, (p.padding + kStride - 1) / kStride);
  const int64_t fits = p.width + p.padding - 3;
  const int64_t last = std::max(first, fits < 0 ? 0 : std::min(p.out_width, fits / kStride + 1));
  const int64_t whole = end - (end - begin) % kLanes;
  for (int64_t at = 0; at < first; ++at) border<kLanes, kStride, kRows>(p, rows, at, begin, end);
  int64_t at = first;
  for (; at + kColumns <= last; at += kColumns) {
    inner<kLanes, kStride, kRows, kColumns>(p, rows, at, begin, whole);
  }
  for (; at < last; ++at) inner<kLanes, kStride, kRows, 1>(p, rows, at, begin, whole);
  for (at = first; whole < end && at < last; ++at) border<kLanes, kStride, kRows>(p, rows, at, whole, end);
  for (at = last; at < p.out_width; ++at) border<kLanes, kStride, kRows>(p, rows, at, begin, end);
}

// kTwo: columns at once for two rows; kOne, for one.
template <int kLanes, int kTwo, int kOne>
LEANMARK_INLINE void run(const Plan& p, const Rows& rows, int64_t begin, int64_t end) {
  if (p.stride == 2) return rows_of_channels<kLanes, 2, 1, kOne>(p, rows, begin, end);
  if (rows.count == 2) return rows_of_channels<kLanes, 1, 2, kTwo>(p, rows, begin, end);
  rows_of_channels<kLanes, 1, 1, kOne>(p, rows, begin, end);
}

}  // namespace leanmark::depthwise
