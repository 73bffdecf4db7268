// The two phases of a block of tiles, for any instruction set.
//
// An instruction set gives a structure `Isa` with
//   kLanes             32-bit numbers of a vector, which holds twice as many of 16 bits
//   widen(from)        2 * kLanes 8-bit values as 16-bit ones
//   rounded(product)   a product that no addition is fused with
//   multiply(product)  what a `Product` says
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "cpu/int8_winograd/plan.h"
#include "cpu/panels.h"
#include "cpu/vector.h"

namespace leanmark::int8_winograd {

template <class Isa>
using Short = Vector<2 * Isa::kLanes, int16_t>;

// Where a tile begins in its image; `top` and `left` count output pixels.
struct Place {
  int64_t image, top, left;
  LEANMARK_INLINE Place(const Plan& p, int64_t tile)
      : image(tile / (p.tiles_high * p.tiles_wide)),
        top(tile % (p.tiles_high * p.tiles_wide) / p.tiles_wide * kOut),
        left(tile % p.tiles_wide * kOut) {}
};

// The pixels under a tile, kChunk channels of them, less the zero point; zero where there are none.
template <class From>
LEANMARK_INLINE void copy_patch(const Plan& p, const From* image, int64_t top, int64_t left, int64_t channel,
                                int64_t channels, int16_t* patch) {
  std::memset(patch, 0, kPoints * kChunk * sizeof(int16_t));
  const int64_t bottom = std::min(kIn, p.height - top), right = std::min(kIn, p.width - left);
  for (int64_t i = std::max<int64_t>(0, -top); i < bottom; ++i) {
    for (int64_t j = std::max<int64_t>(0, -left); j < right; ++j) {
      const From* pixel = image + ((top + i) * p.width + left + j) * p.in_channels + channel;
      int16_t* to = patch + (i * kIn + j) * kChunk;
      for (int64_t c = 0; c < channels; ++c) to[c] = static_cast<int16_t>(pixel[c] - p.zero_point);
    }
  }
}

template <class V>
LEANMARK_INLINE void transform_patch(V (&d)[kPoints], int16_t* to, int64_t point) {
  #pragma GCC unroll 6
  for (int j = 0; j < kIn; ++j) transform_input<kIn>(d + j);
  #pragma GCC unroll 6
  for (int i = 0; i < kIn; ++i) transform_input<1>(d + i * kIn);
  #pragma GCC unroll 36
  for (int e = 0; e < kPoints; ++e) store(d[e], to + e * point);
}

template <class Isa, class From>
LEANMARK_INLINE void transform_inputs_of(const Plan& p, const Block& block, int64_t begin, int64_t end) {
  const int64_t chunks = (p.in_channels + kChunk - 1) / kChunk;
  using V = Short<Isa>;
  constexpr int64_t kStep = 2 * Isa::kLanes;
  const V zero_point = V{} + static_cast<int16_t>(p.zero_point);
  alignas(64) int16_t patch[kPoints * kChunk];
  for (int64_t item = begin; item < end; ++item) {
    const int64_t tile = item / chunks, channel = item % chunks * kChunk;
    const int64_t channels = std::min(kChunk, p.in_channels - channel);
    const Place place(p, block.first + tile);
    const int64_t top = place.top - p.padding, left = place.left - p.padding;
    const From* image = static_cast<const From*>(p.input) + place.image * p.height * p.width * p.in_channels;
    int16_t* to = block.inputs + tile * p.in_stride + channel;

    V d[kPoints];
    const bool inside = top >= 0 && left >= 0 && top + kIn <= p.height && left + kIn <= p.width;
    if (inside && channels % kStep == 0) {
      const From* from = image + (top * p.width + left) * p.in_channels + channel;
      for (int64_t c = 0; c < channels; c += kStep) {
        #pragma GCC unroll 36
        for (int e = 0; e < kPoints; ++e) {
          d[e] = Isa::widen(from + (e / kIn * p.width + e % kIn) * p.in_channels + c) - zero_point;
        }
        transform_patch(d, to + c, p.in_point_stride);
      }
    } else {
      copy_patch(p, image, top, left, channel, channels, patch);
      for (int64_t c = 0; c < channels; c += kStep) {
        #pragma GCC unroll 36
        for (int e = 0; e < kPoints; ++e) d[e] = load<V>(patch + e * kChunk + c);
        transform_patch(d, to + c, p.in_point_stride);
      }
    }
  }
}

template <class Isa>
LEANMARK_INLINE void transform_inputs(const Plan& p, const Block& block, int64_t begin, int64_t end) {
  p.is_unsigned ? transform_inputs_of<Isa, uint8_t>(p, block, begin, end)
                : transform_inputs_of<Isa, int8_t>(p, block, begin, end);
}

// The weights of pairs of channels, as 16-bit values that are transformed to row kRow of the points.
template <class Isa, int kRow>
LEANMARK_INLINE void transform_weights(const Plan& p, const Part& part, int16_t* to) {
  using V = Short<Isa>;
  constexpr int64_t kPairBytes = kWeights * kPairWidth;
  // What is asked of memory, a sixth for each row: the next part of the panel, or the first of the group behind.
  const bool last = part.pair + part.pairs == p.depth / 2;
  const int64_t skipped = last ? (part.panels - 1) * (p.depth / 2) : 0;
  const int64_t ahead = (part.pairs + skipped) * kPairBytes + kRow * kPairBytes / kIn;
  for (int64_t panel = 0; panel < part.panels; ++panel) {
    const int8_t* from = p.weight + ((part.panel + panel) * (p.depth / 2) + part.pair) * kPairBytes;
    int16_t* line = to + panel * kPairs * kPairWidth;
    for (const int16_t* end = line + part.pairs * kPairWidth; line < end; line += kPairWidth) {
      for (int64_t at = 0; at < kPairWidth; at += 2 * Isa::kLanes) {
        V g[kWeights], row[kTaps], u[kIn];
        if (at == 0) __builtin_prefetch(from + ahead);
        #pragma GCC unroll 9
        for (int e = 0; e < kWeights; ++e) g[e] = Isa::widen(from + e * kPairWidth + at);
        #pragma GCC unroll 3
        for (int j = 0; j < kTaps; ++j) row[j] = weight_of<kRow>(g[j], g[kTaps + j], g[2 * kTaps + j]);
        transform_weight(row, u);
        #pragma GCC unroll 6
        for (int j = 0; j < kIn; ++j) store(u[j], line + j * kWeightStride + at);
      }
      from += kPairBytes;
    }
  }
}

// The pixels of a tile, kLanes channels: scale, bias, residual and ReLU. The rounding of every step is that of the
// reference, so no two steps may be fused.
template <class Isa, class Unsigned>
LEANMARK_INLINE void finish(const Plan& p, const Unsigned (&y)[kOut * kOut], float input_scale, int64_t at,
                            int64_t channel, int64_t rows, int64_t columns) {
  using V = Vector<Isa::kLanes>;
  const int64_t lanes = std::min<int64_t>(Isa::kLanes, p.out_channels - channel);
  const bool whole = lanes == Isa::kLanes;
  const V scale = input_scale * (whole ? load<V>(p.scale + channel) : load_first<V>(p.scale + channel, lanes));
  V bias = {};
  if (p.bias) bias = whole ? load<V>(p.bias + channel) : load_first<V>(p.bias + channel, lanes);
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < columns; ++j) {
      const int64_t pixel = at + (i * p.out_width + j) * p.out_channels;
      const auto sum = divide_by_900<Vector<Isa::kLanes, int32_t>>(y[i * kOut + j]);
      V value = Isa::rounded(__builtin_convertvector(sum, V) * scale) + bias;
      if (p.residual) value += whole ? load<V>(p.residual + pixel) : load_first<V>(p.residual + pixel, lanes);
      if (p.relu) value = relu(value);
      if (whole) {
        store(value, p.output + pixel);
      } else {
        store_first(value, p.output + pixel, lanes);
      }
    }
  }
}

// The outputs of a group of panels, whose sums lie in block.outputs.
template <class Isa>
LEANMARK_INLINE void transform_outputs(const Plan& p, const Block& block, const Part& part) {
  using Unsigned = Vector<Isa::kLanes, uint32_t>;
  const int64_t begin = part.panel * kPanelWidth, end = std::min(begin + part.panels * kPanelWidth, p.out_channels);
  for (int64_t tile = 0; tile < part.tiles; ++tile) {
    const Place place(p, block.first + part.tile + tile);
    const int64_t rows = std::min(kOut, p.out_height - place.top);
    const int64_t columns = std::min(kOut, p.out_width - place.left);
    const int64_t pixel = (place.image * p.out_height + place.top) * p.out_width + place.left;
    const float input_scale = p.input_scale[place.image * p.input_scale_step];
    for (int64_t channel = begin; channel < end; channel += Isa::kLanes) {
      const int32_t* from = block.outputs + tile * kOutStride + channel - begin;
      Unsigned m[kPoints], half[kOut * kIn], y[kOut * kOut];
      #pragma GCC unroll 36
      for (int e = 0; e < kPoints; ++e) m[e] = load<Unsigned>(from + e * p.out_point_stride);
      #pragma GCC unroll 6
      for (int j = 0; j < kIn; ++j) transform_output<kIn, kIn>(m + j, half + j);
      #pragma GCC unroll 4
      for (int i = 0; i < kOut; ++i) transform_output<1, 1>(half + i * kIn, y + i * kOut);
      finish<Isa>(p, y, input_scale, pixel * p.out_channels + channel, channel, rows, columns);
    }
  }
}

// Row after row of the points, since the weights of one, which are transformed into scratch, stay in a core's first
// cache. Transformed beforehand they would be 8 times as many bytes to read from memory.
template <class Isa, int kRow = 0>
LEANMARK_INLINE void multiply_part(const Plan& p, const Block& block, const Part& part) {
  static constexpr int32_t kZeros[kOutStride] = {};
  transform_weights<Isa, kRow>(p, part, block.weights);
  for (int64_t j = 0; j < kIn; ++j) {
    const int64_t point = kRow * kIn + j;
    int32_t* to = block.outputs + point * p.out_point_stride;
    Isa::multiply({block.inputs + point * p.in_point_stride + part.tile * p.in_stride + 2 * part.pair, p.in_stride,
                   block.weights + j * kWeightStride, part.pairs, part.panels, part.tiles, part.pair ? to : kZeros,
                   part.pair ? kOutStride : 0, to});
  }
  if constexpr (kRow + 1 < kIn) multiply_part<Isa, kRow + 1>(p, block, part);
}

template <class Isa>
LEANMARK_INLINE void multiply(const Plan& p, const Block& block, int64_t begin, int64_t end) {
  for (int64_t item = begin; item < end; ++item) {
    const int64_t panel = item / p.slices * kGroup, tile = item % p.slices * p.slice_tiles;
    Part part{panel, std::min(kGroup, p.panels - panel), tile, std::min(p.slice_tiles, block.tiles - tile), 0, 0};
    if (part.tiles <= 0) continue;
    for (; part.pair < p.depth / 2; part.pair += kPairs) {
      part.pairs = std::min(kPairs, p.depth / 2 - part.pair);
      multiply_part<Isa>(p, block, part);
    }
    transform_outputs<Isa>(p, block, part);
  }
}

}  // namespace leanmark::int8_winograd
