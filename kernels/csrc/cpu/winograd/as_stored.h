// Products of 3x3 weights that are stored as they are: F(4x4, 3x3) transforms them in registers, where they are
// multiplied.
//
// Transformed ahead, there are four times as many of them, and with few tiles the time goes into reading them. Here
// one row of the points is multiplied at once: nine weights become six in registers, and each meets kTiles tiles.
#pragma once

#include "cpu/winograd/kernel.h"

namespace leanmark::winograd {

constexpr int64_t kTaps = 9;
constexpr int64_t kStretch = 32;  // channels: their weights and inputs stay in the first cache for all rows

// A panel's weights and the inputs of kTiles tiles, at a stretch of the channels.
struct Stretch {
  const float* inputs;   // [ceil(depth / kPanelWidth), points, kTiles, kPanelWidth]
  const float* weights;  // [depth, kTaps, kPanelWidth]
  float* sums;           // [points, kTiles, kPanelWidth]
  int64_t depth;
  bool first;  // of the channels: nothing is in the sums yet
};

// The weights of the stretch that comes next: with each row one or two lines of a channel, so that memory is never
// asked for more than it has time to give.
template <int kRow, int kEach>
LEANMARK_INLINE void expect_weights(const float* weights, int begin) {
  constexpr int kBegin = (3 * kRow + 1) / 2, kEnd = (3 * kRow + 4) / 2;
  #pragma GCC unroll 9
  for (int line = kBegin + begin; line < kEnd; line += kEach) {
    __builtin_prefetch(weights + (kStretch * kTaps + line) * kPanelWidth);
  }
}

// sums[point][tile] += weights at the point x input of the tile, for the points of one row.
template <int kLanes, int kTiles>
struct Sums {
  static constexpr int kIn = F4::kIn;
  using V = Vector<kLanes>;

  V sums[kIn][kTiles];

  LEANMARK_INLINE void read(const float* from, bool zero) {
    #pragma GCC unroll 6
    for (int j = 0; j < kIn; ++j) {
      #pragma GCC unroll 4
      for (int t = 0; t < kTiles; ++t) {
        sums[j][t] = zero ? V{} : load<V>(from + (j * kTiles + t) * kPanelWidth);
      }
    }
  }

  LEANMARK_INLINE void write(float* to) const {
    #pragma GCC unroll 6
    for (int j = 0; j < kIn; ++j) {
      #pragma GCC unroll 4
      for (int t = 0; t < kTiles; ++t) store(sums[j][t], to + (j * kTiles + t) * kPanelWidth);
    }
  }

  // One channel. The order spares registers: all but a few hold sums.
  template <int kRow>
  LEANMARK_INLINE void step(const float* taps, const float* inputs) {
    V w[3];
    #pragma GCC unroll 3
    for (int j = 0; j < 3; ++j) {
      const auto tap = [&](int i) __attribute__((always_inline)) {
        return load<V>(taps + (3 * i + j) * kPanelWidth);
      };
      w[j] = F4AsStored::weights<kRow>(tap);
    }
    const auto one = [&](int i) __attribute__((always_inline)) { return w[i]; };
    meet<0>(F4AsStored::weights<0>(one), inputs);
    meet<5>(F4AsStored::weights<5>(one), inputs);
    meet<1>(F4AsStored::weights<1>(one), inputs);
    meet<2>(F4AsStored::weights<2>(one), inputs);
    meet<3>(F4AsStored::weights<3>(one), inputs);
    meet<4>(F4AsStored::weights<4>(one), inputs);
  }

 private:
  template <int kPoint>
  LEANMARK_INLINE void meet(const V& weight, const float* inputs) {
    #pragma GCC unroll 4
    for (int t = 0; t < kTiles; ++t) sums[kPoint][t] += weight * inputs[(kPoint * kTiles + t) * kPanelWidth];
  }
};

template <int kLanes, int kTiles, int kRow>
LEANMARK_TARGET LEANMARK_OUTLINE void multiply_row(const Stretch& stretch) {
  constexpr int kIn = F4::kIn, kRowFloats = kIn * kTiles * kPanelWidth;
  #pragma GCC unroll 4
  for (int lane = 0; lane < kPanelWidth; lane += kLanes) {
    const float* weights = stretch.weights;
    const float* inputs = stretch.inputs + kRow * kRowFloats;
    float* at = stretch.sums + kRow * kRowFloats + lane;
    Sums<kLanes, kTiles> sums;
    sums.read(at, stretch.first);
    for (int64_t left = stretch.depth; left > 0; left -= kPanelWidth, inputs += kIn * kRowFloats) {
      const int64_t channels = std::min<int64_t>(left, kPanelWidth);
      for (int64_t channel = 0; channel < channels; ++channel, weights += kTaps * kPanelWidth) {
        expect_weights<kRow, kPanelWidth / kLanes>(weights, lane / kLanes);
        sums.template step<kRow>(weights + lane, inputs + channel);
      }
    }
    sums.write(at);
  }
}

// All of a panel's products, and its outputs.
template <int kLanes, int kTiles>
LEANMARK_INLINE void multiply_as_stored(const Plan& p, const Block& block, int64_t begin, int64_t end) {
  constexpr void (*kRows[])(const Stretch&) = {
      multiply_row<kLanes, kTiles, 0>, multiply_row<kLanes, kTiles, 1>, multiply_row<kLanes, kTiles, 2>,
      multiply_row<kLanes, kTiles, 3>, multiply_row<kLanes, kTiles, 4>, multiply_row<kLanes, kTiles, 5>};
  const int64_t groups = (block.tiles + kTiles - 1) / kTiles;
  for (int64_t panel = begin; panel < end; ++panel) {
    const float* weights = p.weight + panel * p.depth * kTaps * kPanelWidth;
    for (int64_t channel = 0; channel < p.depth; channel += kStretch) {
      const int64_t depth = std::min(kStretch, p.depth - channel);
      for (const auto row : kRows) {
        for (int64_t group = 0; group < groups; ++group) {
          row({block.inputs + p.inputs.at(group * kTiles, channel), weights + channel * kTaps * kPanelWidth,
               block.outputs + p.outputs.at(group * kTiles, 0), depth, channel == 0});
        }
      }
    }
    const int64_t first = panel * kPanelWidth, last = std::min(first + kPanelWidth, p.out_channels);
    for (int64_t tile = 0; tile < block.tiles; ++tile) {
      if (tile + kItemsAhead < block.tiles) expect_outputs<F4>(p, block, tile + kItemsAhead, first, last);
      write_tile<kLanes, F4AsStored>(p, block, tile, first, last, block.outputs + p.outputs.at(tile, 0));
    }
  }
}

}  // namespace leanmark::winograd
