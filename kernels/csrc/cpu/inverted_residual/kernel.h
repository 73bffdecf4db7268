// The phases of a tile of an inverted residual, for any vector width.
#pragma once

#include <algorithm>

#include "cpu/inverted_residual/plan.h"
#include "cpu/panels.h"
#include "cpu/vector.h"

namespace leanmark::inverted_residual {

constexpr int kMostPixels = 8;  // of a product

// Keeps NaN, as torch does.
template <int kLanes>
LEANMARK_INLINE Vector<kLanes> relu6(Vector<kLanes> value) {
  const Vector<kLanes> zero = {}, six = zero + 6.0f;
#if defined(__x86_64__)
  if constexpr (kLanes > 4) {  // GCC 12 would compare and blend. Both give the second one where one is NaN.
    asm("vmaxps %1, %2, %0" : "=v"(value) : "v"(value), "v"(zero));
    asm("vminps %1, %2, %0" : "=v"(value) : "v"(value), "v"(six));
    return value;
  }
#endif
  value = zero > value ? zero : value;
  return six < value ? six : value;
}

// `count` floats, less than twice kMost. A call of memcpy for each pixel would take longer than its products.
template <int kMost>
LEANMARK_INLINE void copy(const float* from, float* to, int64_t count) {
  if (count & kMost) {
    std::memcpy(to, from, kMost * sizeof(float));
    from += kMost;
    to += kMost;
  }
  if constexpr (kMost > 1) copy<kMost / 2>(from, to, count);
}

template <int kLanes>
LEANMARK_INLINE Vector<kLanes> load_some(const float* from, int64_t count) {
  if (count == kLanes) return load<Vector<kLanes>>(from);
  alignas(64) float values[kLanes] = {};
  copy<kLanes / 2>(from, values, count);
  return load<Vector<kLanes>>(values);
}

template <int kLanes>
LEANMARK_INLINE void store_some(const Vector<kLanes>& vector, float* to, int64_t count) {
  if (count == kLanes) return store(vector, to);
  alignas(64) float values[kLanes];
  store(vector, values);
  copy<kLanes / 2>(values, to, count);
}

// The weights of one chunk, with zeros for channels that there are not.
struct Filter {
  alignas(64) float taps[9][kChunk] = {}, bias[kChunk] = {}, expand_bias[kChunk] = {};

  LEANMARK_INLINE Filter(const Plan& p, int64_t channel) {
    const int64_t bytes = std::min(kChunk, p.hidden - channel) * sizeof(float);
    for (int tap = 0; tap < 9; ++tap) std::memcpy(taps[tap], p.filter + tap * p.hidden + channel, bytes);
    if (p.filter_bias) std::memcpy(bias, p.filter_bias + channel, bytes);
    if (p.expand_bias) std::memcpy(expand_bias, p.expand_bias + channel, bytes);
  }
};

// Rows [begin, end) of the image that are still to be expanded, and the ring for a chunk of their channels.
struct Rows {
  const float* image;  // of row `begin`
  int64_t begin, end;
  float* ring;
};

// Pixels times panels, and where each pixel's products go.
struct Operands {
  const float* a;
  int64_t a_stride;
  const float* b;
  int64_t depth;
  const float* bias;
  float* to[kMostPixels];
};

// The pixels of expanded rows one after another, in the ring.
struct Place {
  const Plan& p;
  float* ring;
  int64_t row, column = 0;
  float* at = first();

  LEANMARK_INLINE float* first() const { return ring + row % p.kept * p.row_floats() + kChunk; }

  LEANMARK_INLINE float* next() {
    float* const here = at;
    at += kChunk;
    if (++column == p.width) {
      column = 0;
      ++row;
      at = first();
    }
    return here;
  }
};

// kFirst: the panels are met for the first time, so those that come next are asked for.
template <int kLanes, int kRows, int kPanels, bool kFirst>
LEANMARK_TARGET LEANMARK_OUTLINE void expand_pixels(const Operands& o) {
  const int64_t panel = o.depth * kPanelWidth;
  const float* bias = o.bias;
  Product<Float32Panel, kLanes, kRows, kPanels> product;
  product.template run<kFirst>(o.a, o.a_stride, o.b, panel, o.depth, kPanels * panel);
  #pragma GCC unroll 16
  for (int v = 0; v < product.kVectors; ++v) {
    const auto more = load<Vector<kLanes>>(bias + v * kLanes);
    #pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      store(relu6<kLanes>(product.sums[r][v] + more), o.to[r] + v * kLanes);
    }
  }
}

template <int kLanes, int kRows, int kPanels, bool kFirst>
LEANMARK_INLINE void expand_any(int64_t rows, const Operands& o) {
  if constexpr (kRows > 1) {
    if (rows < kRows) return expand_any<kLanes, kRows - 1, kPanels, kFirst>(rows, o);
  }
  expand_pixels<kLanes, kRows, kPanels, kFirst>(o);
}

// kPanels panels of the expanded rows. Their pixels lie together in the image.
template <int kLanes, int kMostRows, int kPanels>
LEANMARK_INLINE void expand_rows(const Plan& p, const Rows& rows, int64_t lane, Operands o) {
  const int64_t pixels = (rows.end - rows.begin) * p.width;
  o.a = rows.image;
  Place place{p, rows.ring + lane, rows.begin};
  RowTiles split(pixels, kMostRows);
  for (int64_t pixel = 0; pixel < pixels;) {
    const int64_t count = split.next();
    for (int64_t r = 0; r < count; ++r) o.to[r] = place.next();
    if (pixel == 0) {
      expand_any<kLanes, kMostRows, kPanels, true>(count, o);
    } else {
      expand_any<kLanes, kMostRows, kPanels, false>(count, o);
    }
    o.a += count * p.in_channels;
    pixel += count;
  }
}

template <int kLanes, int kMostRows, int kPanels>
LEANMARK_INLINE void expand_chunk(const Plan& p, const Rows& rows, const Filter& filter, int64_t channel,
                                  int64_t channels) {
  const int64_t panel = p.in_channels * kPanelWidth;
  for (int64_t lane = 0; lane < channels;) {
    const Operands o{nullptr, p.in_channels, p.expand + (channel + lane) / kPanelWidth * panel, p.in_channels,
                     filter.expand_bias + lane, {}};
    if (lane + (kPanels - 1) * kPanelWidth < channels) {
      expand_rows<kLanes, kMostRows, kPanels>(p, rows, lane, o);
      lane += kPanels * kPanelWidth;
    } else {
      expand_rows<kLanes, kMostRows, 1>(p, rows, lane, o);
      lane += kPanelWidth;
    }
  }
}

// Where there is no expansion: the channels as they are.
template <int kLanes>
LEANMARK_INLINE void copy_chunk(const Plan& p, const Rows& rows, int64_t channel, int64_t channels) {
  const float* from = rows.image + channel;
  Place place{p, rows.ring, rows.begin};
  for (int64_t pixel = rows.begin * p.width; pixel < rows.end * p.width; ++pixel) {
    float* const to = place.next();
    for (int64_t lane = 0; lane < channels; lane += kLanes) {
      store(load_some<kLanes>(from + lane, std::min<int64_t>(kLanes, channels - lane)), to + lane);
    }
    from += p.in_channels;
  }
}

// kRows x kColumns outputs of one vector of channels.
template <int kLanes, int kStride, int kRows, int kColumns>
LEANMARK_INLINE void filter_pixels(const float* const* x, const Vector<kLanes>* taps, Vector<kLanes> bias,
                                   float* to, int64_t row, int64_t pixel) {
  constexpr int kHigh = (kRows - 1) * kStride + 3, kWide = (kColumns - 1) * kStride + 3;
  Vector<kLanes> sums[kRows][kColumns];
  #pragma GCC unroll 2
  for (int r = 0; r < kRows; ++r) {
    #pragma GCC unroll 4
    for (int c = 0; c < kColumns; ++c) sums[r][c] = bias;
  }
  #pragma GCC unroll 5
  for (int i = 0; i < kHigh; ++i) {
    Vector<kLanes> pixels[kWide];
    #pragma GCC unroll 16
    for (int c = 0; c < kWide; ++c) pixels[c] = load<Vector<kLanes>>(x[i] + c * kChunk);
    #pragma GCC unroll 2
    for (int r = 0; r < kRows; ++r) {
      const int tap = i - r * kStride;
      if (tap < 0 || tap > 2) continue;
      #pragma GCC unroll 3
      for (int k = 0; k < 3; ++k) {
        #pragma GCC unroll 4
        for (int c = 0; c < kColumns; ++c) sums[r][c] += pixels[c * kStride + k] * taps[tap * 3 + k];
      }
    }
  }
  #pragma GCC unroll 2
  for (int r = 0; r < kRows; ++r) {
    #pragma GCC unroll 4
    for (int c = 0; c < kColumns; ++c) store(relu6<kLanes>(sums[r][c]), to + r * row + c * pixel);
  }
}

// All outputs of a tile, for one vector of channels. Where kRows or kColumns do not divide the tile, the last
// ones are computed twice. `ring` and `to` begin at the vector.
template <int kLanes, int kStride, int kRows, int kColumns>
LEANMARK_TARGET LEANMARK_OUTLINE void filter_tile(const Plan& p, const Tile& t, const Filter& filter,
                                                  int64_t lane, const float* ring, float* to) {
  constexpr int kHigh = (kRows - 1) * kStride + 3;
  Vector<kLanes> taps[9];
  #pragma GCC unroll 9
  for (int tap = 0; tap < 9; ++tap) taps[tap] = load<Vector<kLanes>>(filter.taps[tap] + lane);
  const auto bias = load<Vector<kLanes>>(filter.bias + lane);
  const int64_t pixel = p.filtered_stride, row_stride = p.out_width * pixel, rows = t.last - t.first;
  for (int64_t next = 0; next < rows; next += kRows) {
    const int64_t row = std::min(next, rows - kRows);
    const float* x[kHigh];
    for (int i = 0; i < kHigh; ++i) {
      const int64_t y = (t.first + row) * kStride - 1 + i;
      x[i] = y >= 0 && y < p.height ? ring + y % p.kept * p.row_floats() : t.nothing;
    }
    int64_t was = 0;
    for (int64_t following = 0; following < p.out_width; following += kColumns) {
      const int64_t column = std::min(following, p.out_width - kColumns);
      for (int i = 0; i < kHigh; ++i) x[i] += (column - was) * kStride * kChunk;
      was = column;
      filter_pixels<kLanes, kStride, kRows, kColumns>(x, taps, bias, to + row * row_stride + column * pixel,
                                                      row_stride, pixel);
    }
  }
}

template <int kLanes, int kStride, int kColumns>
LEANMARK_INLINE void filter_any(const Plan& p, const Tile& t, const Filter& filter, int64_t lane,
                                const float* ring, float* to) {
  if (p.out_width < kColumns) {
    filter_tile<kLanes, kStride, 1, 1>(p, t, filter, lane, ring, to);
  } else if (t.last - t.first == 1) {
    filter_tile<kLanes, kStride, 1, kColumns>(p, t, filter, lane, ring, to);
  } else {
    filter_tile<kLanes, kStride, 2, kColumns>(p, t, filter, lane, ring, to);
  }
}

template <int kLanes, int kMostRows, int kPanels, int kColumns>
LEANMARK_INLINE void expand_and_filter(const Plan& p, const Tile& t, int64_t begin, int64_t end) {
  const int64_t needed = std::min(p.height, (t.last - 1) * p.stride + 2);
  const float* image = p.input + (t.image * p.height + t.expanded) * p.width * p.in_channels;
  for (int64_t chunk = begin; chunk < end; ++chunk) {
    const int64_t channel = chunk * kChunk, channels = std::min(kChunk, p.hidden - channel);
    const Filter filter(p, channel);
    float* ring = t.ring + chunk * p.chunk_floats;
    const Rows rows{image, t.expanded, needed, ring};
    if (p.expand) {
      expand_chunk<kLanes, kMostRows, kPanels>(p, rows, filter, channel, channels);
    } else {
      copy_chunk<kLanes>(p, rows, channel, channels);
    }
    for (int64_t lane = 0; lane < channels; lane += kLanes) {
      float* to = t.filtered + channel + lane;
      if (p.stride == 1) {
        filter_any<kLanes, 1, kColumns>(p, t, filter, lane, ring + lane, to);
      } else {
        filter_any<kLanes, 2, kColumns>(p, t, filter, lane, ring + lane, to);
      }
    }
  }
}

// Bias and residual on the way out, for what there is of the columns. `pixel` and `panel`: of the output.
template <int kLanes, int kRows, int kPanels, int kVectors, bool kFirst>
LEANMARK_TARGET LEANMARK_OUTLINE void project_pixels(const Plan& p, const float* a, int64_t pixel, int64_t panel) {
  using V = Vector<kLanes>;
  const int64_t stride = p.hidden * kPanelWidth;
  Product<Float32Panel, kLanes, kRows, kPanels, kVectors> product;
  product.template run<kFirst>(a, p.filtered_stride, p.project + panel * stride, stride, p.hidden,
                               kPanels * stride);
  #pragma GCC unroll 16
  for (int v = 0; v < product.kVectors; ++v) {
    const int64_t column = panel * kPanelWidth + v * kLanes;
    const int64_t lanes = std::min<int64_t>(kLanes, p.out_channels - column);
    if (lanes <= 0) return;
    const V bias = p.project_bias ? load_some<kLanes>(p.project_bias + column, lanes) : V{};
    #pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const int64_t at = (pixel + r) * p.out_channels + column;
      V value = product.sums[r][v] + bias;
      if (p.residual) value += load_some<kLanes>(p.input + at, lanes);
      store_some<kLanes>(value, p.output + at, lanes);
    }
  }
}

template <int kLanes, int kRows, int kPanels, int kVectors, bool kFirst>
LEANMARK_INLINE void project_any(int64_t rows, const Plan& p, const float* a, int64_t pixel, int64_t panel) {
  if constexpr (kRows > 1) {
    if (rows < kRows) return project_any<kLanes, kRows - 1, kPanels, kVectors, kFirst>(rows, p, a, pixel, panel);
  }
  project_pixels<kLanes, kRows, kPanels, kVectors, kFirst>(p, a, pixel, panel);
}

template <int kLanes, int kMostRows, int kPanels>
LEANMARK_INLINE void project(const Plan& p, const Tile& t, int64_t begin, int64_t end) {
  constexpr int kPanel = kPanelWidth / kLanes, kHalf = (kPanel + 1) / 2;  // vectors
  const int64_t pixels = t.pixels(p), parts = (pixels + kMostRows - 1) / kMostRows;
  const int64_t panels = (p.out_channels + kPanelWidth - 1) / kPanelWidth;
  const int64_t start = (t.image * p.out_height + t.first) * p.out_width;
  for (int64_t item = begin; item < end; ++item) {
    const int64_t panel = item / parts * kPanels, part = item % parts;
    const int64_t first = pixels * part / parts, rows = pixels * (part + 1) / parts - first;
    const float* a = t.filtered + first * p.filtered_stride;
    if (kHalf < kPanel && p.out_channels - panel * kPanelWidth <= kPanelWidth / 2) {
      project_any<kLanes, kMostRows, 1, kHalf, false>(rows, p, a, start + first, panel);
    } else if (panel + kPanels > panels) {
      project_any<kLanes, kMostRows, 1, kPanel, false>(rows, p, a, start + first, panel);
    } else if (part == 0) {
      project_any<kLanes, kMostRows, kPanels, kPanels * kPanel, true>(rows, p, a, start + first, panel);
    } else {
      project_any<kLanes, kMostRows, kPanels, kPanels * kPanel, false>(rows, p, a, start + first, panel);
    }
  }
}

}  // namespace leanmark::inverted_residual
