// Pooling for any vector width.
#pragma once

#include <algorithm>
#include <limits>

#include "cpu/pooling/plan.h"
#include "cpu/vector.h"

namespace leanmark::pooling {

// NaN stays, whichever side it is on. Without the target, GCC 12 would compare lane by lane.
template <class V>
LEANMARK_TARGET LEANMARK_INLINE V larger(const V& most, const V& pixel) {
  const V larger = pixel > most ? pixel : most;
  return pixel != pixel ? pixel : larger;
}

template <int kLanes>
LEANMARK_TARGET void largest(const float* const* pixels, int64_t count, int64_t channels, float* to) {
  using V = Vector<kLanes>;
  constexpr int kVectors = 4;  // at once, since each step waits for the one before it
  const V least = V{} - std::numeric_limits<float>::infinity();
  int64_t channel = 0;
  for (; channel + kVectors * kLanes <= channels; channel += kVectors * kLanes) {
    V most[kVectors] = {least, least, least, least};
    for (int64_t i = 0; i < count; ++i) {
      #pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) most[v] = larger(most[v], load<V>(pixels[i] + channel + v * kLanes));
    }
    #pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) store(most[v], to + channel + v * kLanes);
  }
  for (; channel < channels; channel += kLanes) {
    const int64_t lanes = std::min<int64_t>(kLanes, channels - channel);
    V most = least;
    for (int64_t i = 0; i < count; ++i) most = larger(most, load_first<V>(pixels[i] + channel, lanes));
    store_first(most, to + channel, lanes);
  }
}

// Added up in stretches, whose sums are added up: rounding errors would grow with the size of the image.
template <int kLanes>
LEANMARK_TARGET void mean(const float* pixels, int64_t count, int64_t stride, int64_t channels, float* to) {
  using V = Vector<kLanes>;
  constexpr int64_t kStretch = 64;
  for (int64_t channel = 0; channel < channels; channel += kLanes) {
    const int64_t lanes = std::min<int64_t>(kLanes, channels - channel);
    const bool whole = lanes == kLanes;
    V total = {};
    for (int64_t first = 0; first < count; first += kStretch) {
      V sum = {};
      for (int64_t i = first; i < std::min(count, first + kStretch); ++i) {
        const float* from = pixels + i * stride + channel;
        sum += whole ? load<V>(from) : load_first<V>(from, lanes);
      }
      total += sum;
    }
    total /= V{} + float(count);
    if (whole) {
      store(total, to + channel);
    } else {
      store_first(total, to + channel, lanes);
    }
  }
}

}  // namespace leanmark::pooling
