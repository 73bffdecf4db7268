// The three phases of a block of Winograd tiles, for any vector width.
#pragma once

#include <utility>

#include "cpu/panels.h"
#include "cpu/vector.h"
#include "cpu/winograd/plan.h"
#include "cpu/winograd/transforms.h"

namespace leanmark::winograd {

constexpr int64_t kItemsAhead = 2, kLineFloats = 16;  // of outputs that are asked for

// Where a tile begins in its image; `top` and `left` count output pixels.
struct Place {
  int64_t image, top, left;
  LEANMARK_INLINE Place(const Plan& p, int64_t tile, int64_t side)
      : image(tile / (p.tiles_high * p.tiles_wide)),
        top(tile % (p.tiles_high * p.tiles_wide) / p.tiles_wide * side),
        left(tile % p.tiles_wide * side) {}
};

// `size` x `size` pixels of kChunk channels from (top, left) of an image on, zero where there is none.
LEANMARK_INLINE void copy_patch(const Plan& p, const float* image, int64_t top, int64_t left, int64_t size,
                                int64_t channel, int64_t channels, float* patch) {
  std::memset(patch, 0, size * size * kChunk * sizeof(float));
  const int64_t bottom = std::min(size, p.height - top), right = std::min(size, p.width - left);
  for (int64_t i = std::max<int64_t>(0, -top); i < bottom; ++i) {
    for (int64_t j = std::max<int64_t>(0, -left); j < right; ++j) {
      const float* pixel = image + ((top + i) * p.width + left + j) * p.in_channels + channel;
      std::memcpy(patch + (i * size + j) * kChunk, pixel, channels * sizeof(float));
    }
  }
}

template <int kLanes, class Tile>
LEANMARK_INLINE void transform_input(const float* from, int64_t row, int64_t pixel, float* to, int64_t point) {
  constexpr int kIn = Tile::kIn;
  Vector<kLanes> d[kIn * kIn];
  #pragma GCC unroll 6
  for (int i = 0; i < kIn; ++i) {
    #pragma GCC unroll 6
    for (int j = 0; j < kIn; ++j) d[i * kIn + j] = load<Vector<kLanes>>(from + i * row + j * pixel);
  }
  #pragma GCC unroll 6
  for (int j = 0; j < kIn; ++j) Tile::template input<kIn>(d + j);
  #pragma GCC unroll 6
  for (int i = 0; i < kIn; ++i) Tile::template input<1>(d + i * kIn);
  #pragma GCC unroll 36
  for (int e = 0; e < kIn * kIn; ++e) store(d[e], to + kOrder<Tile>.place[e] * point);
}

template <int kLanes, class Tile>
LEANMARK_INLINE void transform_inputs(const Plan& p, const Block& block, int64_t begin, int64_t end) {
  constexpr int kIn = Tile::kIn;
  const int64_t chunks = (p.in_channels + kChunk - 1) / kChunk;
  alignas(64) float patch[kIn * kIn * kChunk];
  for (int64_t item = begin; item < end; ++item) {
    const int64_t tile = item / chunks, channel = item % chunks * kChunk;
    const int64_t channels = std::min(kChunk, p.in_channels - channel);
    // Behind the last tile it again, where a group of tiles is filled up.
    const Place place(p, block.first + std::min(tile, block.tiles - 1), Tile::kOut);
    constexpr int kStride = Tile::kStep / Tile::kOut;
    const int64_t top = place.top * kStride - p.padding, left = place.left * kStride - p.padding;
    const float* image = p.input + place.image * p.height * p.width * p.in_channels;

    const bool inside = top >= 0 && left >= 0 && top + kIn <= p.height && left + kIn <= p.width;
    const bool straight = inside && channels % kLanes == 0;
    if (!straight) copy_patch(p, image, top, left, kIn, channel, channels, patch);
    const float* from = straight ? image + (top * p.width + left) * p.in_channels + channel : patch;
    const int64_t pixel = straight ? p.in_channels : kChunk;
    const int64_t row = straight ? p.width * p.in_channels : kIn * kChunk;

    float* to = block.inputs + p.inputs.at(tile, channel);
    for (int64_t c = 0; c < channels; c += kLanes) {
      float* lanes = to + c / kPanelWidth * p.inputs.channels + c % kPanelWidth;
      transform_input<kLanes, Tile>(from + c, row, pixel, lanes, p.inputs.point);
    }
  }
}

// Rows of transformed tiles, the panels they meet, and where their products go.
struct Operands {
  const float* a;
  int64_t a_stride;
  const float* b;
  int64_t depth;
  float* to;
  int64_t to_stride;
  int64_t ahead;  // floats from the panels to those that are asked for
};

// kAsked: how many of the panels that come next are asked for.
template <int kLanes, int kRows, int kPanels, int kAsked>
LEANMARK_TARGET LEANMARK_OUTLINE void multiply_rows(const Operands& o) {
  const int64_t panel = o.depth * kPanelWidth;
  Product<Float32Panel, kLanes, kRows, kPanels> product;
  product.template run<(kAsked > 0), kAsked>(o.a, o.a_stride, o.b, panel, o.depth, o.ahead);
  product.store_to(o.to, o.to_stride);
}

// `rows` rows, at most kRows of them.
template <int kLanes, int kRows, int kPanels, int kAsked>
LEANMARK_INLINE void multiply_any(int64_t rows, const Operands& o) {
  if constexpr (kRows > 1) {
    if (rows < kRows) return multiply_any<kLanes, kRows - 1, kPanels, kAsked>(rows, o);
  }
  multiply_rows<kLanes, kRows, kPanels, kAsked>(o);
}

// All tiles of the block, at one point and for kPanels panels. The first rows ask for the first of the panels that
// come next, the second rows for the second: all at once, memory would not keep up, and then lie idle.
template <int kLanes, int kMostRows, int kPanels>
LEANMARK_INLINE void multiply_panels(const Block& block, Operands o) {
  const int64_t panel = o.depth * kPanelWidth;
  RowTiles split(block.tiles, kMostRows);
  int64_t asked = 0;
  for (int64_t row = 0; row < block.tiles;) {
    const int64_t rows = split.next();
    o.ahead = (kPanels + asked) * panel;
    if (rows == block.tiles) {
      multiply_any<kLanes, kMostRows, kPanels, kPanels>(rows, o);
    } else if (asked < kPanels) {
      multiply_any<kLanes, kMostRows, kPanels, 1>(rows, o);
    } else {
      multiply_any<kLanes, kMostRows, kPanels, 0>(rows, o);
    }
    ++asked;
    o.a += rows * o.a_stride;
    o.to += rows * o.to_stride;
    row += rows;
  }
}

template <int kLanes, int kMostRows, int kPanels>
LEANMARK_INLINE void multiply(const Plan& p, const Block& block, int64_t begin, int64_t end) {
  const int64_t groups = (p.panels + kPanels - 1) / kPanels;
  for (int64_t item = begin; item < end; ++item) {
    const int64_t weights = item / groups, panel = item % groups * kPanels;
    const float* b = p.weight + (weights * p.panels + panel) * p.depth * kPanelWidth;
    for (int64_t point = p.first[weights]; point < p.first[weights + 1]; ++point) {
      const float* a = block.inputs + point * p.inputs.point;
      float* to = block.outputs + point * p.outputs.point + panel * kPanelWidth;
      const Operands o{a, p.inputs.tile, b, p.depth, to, p.outputs.tile, 0};
      if (panel + kPanels > p.panels) {
        multiply_panels<kLanes, kMostRows, 1>(block, o);
      } else {
        multiply_panels<kLanes, kMostRows, kPanels>(block, o);
      }
    }
  }
}

// Bias, residual and ReLU on the way out, for the `rows` x `columns` pixels of the tile that exist.
template <int kLanes, class Tile>
LEANMARK_INLINE void transform_output(const Plan& p, const float* from, int64_t at, int64_t channel,
                                      int64_t rows, int64_t columns) {
  constexpr int kIn = Tile::kIn, kOut = Tile::kOut;
  using V = Vector<kLanes>;
  V m[kIn * kIn], half[kOut * kIn], y[kOut * kOut];
  #pragma GCC unroll 36
  for (int e = 0; e < kIn * kIn; ++e) m[e] = load<V>(from + kOrder<Tile>.place[e] * p.outputs.point);
  #pragma GCC unroll 6
  for (int j = 0; j < kIn; ++j) Tile::template output<kIn, kIn>(m + j, half + j);
  #pragma GCC unroll 4
  for (int i = 0; i < kOut; ++i) Tile::template output<1, 1>(half + i * kIn, y + i * kOut);

  const int64_t lanes = std::min<int64_t>(kLanes, p.out_channels - channel);
  V bias = {};
  if (p.bias) bias = lanes == kLanes ? load<V>(p.bias + channel) : load_first<V>(p.bias + channel, lanes);
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < columns; ++j) {
      const int64_t pixel = at + (i * p.out_width + j) * p.out_channels;
      V value = y[i * kOut + j] + bias;
      if (p.residual) {
        const float* other = p.residual + pixel;
        value += lanes == kLanes ? load<V>(other) : load_first<V>(other, lanes);
      }
      if (p.relu) value = relu(value);
      if (lanes == kLanes) {
        store(value, p.output + pixel);
      } else {
        store_first(value, p.output + pixel, lanes);
      }
    }
  }
}

// Asks for the memory of a tile's output pixels. They lie too far apart for the processor to see a pattern, and in a
// whole model what is written to has left the caches since it was last used.
template <class Tile>
LEANMARK_INLINE void expect_outputs(const Plan& p, const Block& block, int64_t tile, int64_t first, int64_t last) {
  const Place place(p, block.first + tile, Tile::kOut);
  const int64_t rows = std::min<int64_t>(Tile::kOut, p.out_height - place.top);
  const int64_t columns = std::min<int64_t>(Tile::kOut, p.out_width - place.left);
  const int64_t pixel = (place.image * p.out_height + place.top) * p.out_width + place.left;
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < columns; ++j) {
      const int64_t at = (pixel + i * p.out_width + j) * p.out_channels;
      for (int64_t channel = first; channel < last; channel += kLineFloats) {
        __builtin_prefetch(p.output + at + channel, 1);
        if (p.residual) __builtin_prefetch(p.residual + at + channel);
      }
    }
  }
}

// Channels `first` to `last` of a tile, of which `from` holds the points.
template <int kLanes, class Tile>
LEANMARK_INLINE void write_tile(const Plan& p, const Block& block, int64_t tile, int64_t first, int64_t last,
                                const float* from) {
  const Place place(p, block.first + tile, Tile::kOut);
  const int64_t rows = std::min<int64_t>(Tile::kOut, p.out_height - place.top);
  const int64_t columns = std::min<int64_t>(Tile::kOut, p.out_width - place.left);
  const int64_t pixel = (place.image * p.out_height + place.top) * p.out_width + place.left;
  for (int64_t channel = first; channel < last; channel += kLanes, from += kLanes) {
    transform_output<kLanes, Tile>(p, from, pixel * p.out_channels + channel, channel, rows, columns);
  }
}

template <int kLanes, class Tile>
LEANMARK_INLINE void transform_outputs(const Plan& p, const Block& block, int64_t begin, int64_t end) {
  const int64_t chunks = (p.out_channels + kChunk - 1) / kChunk;
  const auto channels = [&](int64_t item) {
    const int64_t first = item % chunks * kChunk;
    return std::pair(first, std::min(first + kChunk, p.out_channels));
  };
  for (int64_t item = begin; item < end; ++item) {
    if (const int64_t next = item + kItemsAhead; next < end) {
      const auto [first, last] = channels(next);
      expect_outputs<Tile>(p, block, next / chunks, first, last);
    }
    const auto [first, last] = channels(item);
    const float* from = block.outputs + p.outputs.at(item / chunks, first);
    write_tile<kLanes, Tile>(p, block, item / chunks, first, last, from);
  }
}

}  // namespace leanmark::winograd
