// The two phases of the layer, for any instruction set.
//
// An instruction set gives a structure `Isa` with
//   pack8(rows, depth, padded_depth, to, shift)   kTileRows rows of a tile, in 8 bits and in 16
//   pack16(rows, depth, padded_depth, to)
//   widen(w, depth, to)                         a panel in 16 bits, for kTileRows rows: as many values
//   products<rows>(arithmetic, x, w, wide, depth, sums)   [rows, kPanelWidth] 32-bit sums of a tile and a panel
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "cpu/int8_linear/patches.h"
#include "cpu/int8_linear/plan.h"
#include "cpu/panels.h"
#include "cpu/vector.h"

namespace leanmark::int8_linear {

constexpr int64_t kMost16 = 32767;

// A kernel whose tiles choose their arithmetic.
constexpr Kernel by_limits(decltype(Kernel::pack) pack, decltype(Kernel::multiply) multiply) {
  return {pack, multiply, 1, kTileRows, 32 * 1024, true};
}

inline Arithmetic arithmetic_for(const Plan& p, int64_t range) {
  if (range * p.largest_quad <= kMost16) return Arithmetic::kQuads;
  return range * p.largest_pair <= kMost16 ? Arithmetic::kPairs : Arithmetic::kWide;
}

// Each group of four values of a row goes to its place, `at` groups apart; the depth is filled up with zeros.
template <class From, class To>
LEANMARK_INLINE void pack_row(const From* from, int64_t depth, int64_t padded_depth, To* to, int64_t at,
                              int32_t shift) {
  for (int64_t k = 0; k < padded_depth; k += 4, to += 4 * at) {
    To four[4];
    for (int u = 0; u < 4; ++u) four[u] = k + u < depth ? static_cast<To>(from[k + u] - shift) : To{};
    if (sizeof(To) == 2) std::swap(four[1], four[2]);
    std::memcpy(to, four, sizeof(four));
  }
}

template <class From, class To>
LEANMARK_INLINE void pack_rows(const From* const (&rows)[kTileRows], int64_t depth, int64_t padded_depth, To* to,
                               int32_t shift) {
  for (int r = 0; r < kTileRows; ++r) pack_row(rows[r], depth, padded_depth, to + 4 * r, kTileRows, shift);
}

template <class From>
LEANMARK_INLINE void range_of(const From* from, int64_t count, int32_t& least, int32_t& most) {
  From low = from[0], high = from[0];
  for (int64_t i = 1; i < count; ++i) {
    low = std::min(low, from[i]);
    high = std::max(high, from[i]);
  }
  least = low;
  most = high;
}

// The rows of a tile one after the other; `gathered` has room for them.
LEANMARK_INLINE const uint8_t* rows_of(const Plan& p, const Tile& tile, uint8_t* gathered) {
  const auto* input = static_cast<const uint8_t*>(p.input);
  if (!p.patches) return input + tile.row * p.depth;
  Pixel at(*p.patches, tile.row);
  for (int64_t r = 0; r < tile.rows; ++r, at.advance(*p.patches)) {
    gather(*p.patches, input, at, gathered + r * p.depth,
           [](const uint8_t* from, int64_t count, uint8_t* to) { std::memcpy(to, from, count); },
           [&](int64_t count, uint8_t* to) { std::memset(to, static_cast<int>(p.zero_point), count); });
  }
  return gathered;
}

template <class Isa, class From>
LEANMARK_INLINE void pack_tile(const Plan& p, const Tile& tile, uint8_t* gathered) {
  const From* from = reinterpret_cast<const From*>(rows_of(p, tile, gathered));
  int32_t least = 0, most = 0;
  if (p.depth > 0) range_of(from, tile.rows * p.depth, least, most);
  const Arithmetic arithmetic = arithmetic_for(p, most - least);
  *tile.header = {arithmetic, arithmetic == Arithmetic::kWide ? 0 : least};
  // Rows that are missing repeat the last one; nobody reads what comes of them.
  const From* rows[kTileRows];
  for (int64_t r = 0; r < kTileRows; ++r) rows[r] = from + std::min(r, tile.rows - 1) * p.depth;
  if (arithmetic == Arithmetic::kWide) {
    auto* to = reinterpret_cast<int16_t*>(tile.values);
    tile.stored == 1 ? pack_row(rows[0], p.depth, p.padded_depth, to, 1, 0)
                     : Isa::pack16(rows, p.depth, p.padded_depth, to);
  } else {
    auto* to = reinterpret_cast<uint8_t*>(tile.values);
    tile.stored == 1 ? pack_row(rows[0], p.depth, p.padded_depth, to, 1, least)
                     : Isa::pack8(rows, p.depth, p.padded_depth, to, least);
  }
}

template <class Isa>
LEANMARK_INLINE void pack(const Plan& p, int64_t begin, int64_t end) {
  std::vector<uint8_t> gathered(p.patches ? kTileRows * p.depth : 0);
  for (int64_t index = begin; index < end; ++index) {
    const Tile tile = tile_of(p, index);
    p.is_unsigned ? pack_tile<Isa, uint8_t>(p, tile, gathered.data())
                  : pack_tile<Isa, int8_t>(p, tile, gathered.data());
  }
}

// The columns of one panel, filled up to its width.
struct Columns {
  int64_t first, count;
  float scale[kPanelWidth] = {}, bias[kPanelWidth] = {};

  Columns(const Plan& p, int64_t panel)
      : first(panel * kPanelWidth), count(std::min<int64_t>(kPanelWidth, p.columns - first)) {
    std::memcpy(scale, p.scale + first, count * sizeof(float));
    if (p.bias) std::memcpy(bias, p.bias + first, count * sizeof(float));
  }
};

// The rounding of every step is that of the reference, so no two steps may be fused.
LEANMARK_INLINE void finish(const Plan& p, const Tile& tile, const Columns& columns, const Footer& footer,
                            const int32_t* sums) {
  using V = Vector<8>;
  using Unsigned = Vector<8, uint32_t>;  // the shift alone may overflow where the result does not
  const auto shift = static_cast<uint32_t>(tile.header->shift - static_cast<int32_t>(p.zero_point));
  const V floor = V{} - (p.relu ? 0.0f : std::numeric_limits<float>::infinity());
  for (int half = 0; half < kPanelWidth; half += 8) {
    const int64_t lanes = std::min<int64_t>(8, columns.count - half);
    if (lanes <= 0) return;
    const V scale = load<V>(columns.scale + half), bias = load<V>(columns.bias + half);
    const Unsigned shifted = load<Unsigned>(footer.sums + half) * shift;
    for (int64_t r = 0; r < tile.rows; ++r) {
      const float row_scale = p.input_scale[(tile.row + r) / p.rows_per_scale];
      const auto sum = reinterpret_cast<Vector<8, int32_t>>(load<Unsigned>(sums + r * kPanelWidth + half) + shifted);
      V value = __builtin_convertvector(sum, V) * (row_scale * scale) + bias;
      value = value < floor ? floor : value;  // keeps NaN
      float* to = p.output + (tile.row + r) * p.output_stride + columns.first + half;
      if (lanes == 8) {
        store(value, to);
      } else {
        store_first(value, to, lanes);
      }
    }
  }
}

inline bool any_is_wide(const Plan& p, int64_t first, int64_t last) {
  for (int64_t t = first; t < last; ++t) {
    const Tile tile = tile_of(p, t);
    if (tile.stored == kTileRows && tile.header->arithmetic == Arithmetic::kWide) return true;
  }
  return false;
}

template <class Isa>
LEANMARK_INLINE void multiply(const Plan& p, int64_t begin, int64_t end) {
  alignas(64) int32_t sums[kTileRows * kPanelWidth];
  std::vector<int16_t> wide;
  for (int64_t item = begin; item < end; ++item) {
    const int64_t panel = item % p.panels;
    const int8_t* w = p.weight + panel * p.panel_bytes;
    Footer footer;
    std::memcpy(&footer, w + p.padded_depth * kPanelWidth, sizeof(footer));
    const Columns columns(p, panel);
    const int64_t first = item / p.panels * p.block_tiles, last = std::min(p.tiles, first + p.block_tiles);
    if (any_is_wide(p, first, last)) {
      wide.resize(p.padded_depth * kPanelWidth);
      Isa::widen(w, p.padded_depth, wide.data());
    }
    for (int64_t t = first; t < last; ++t) {
      const Tile tile = tile_of(p, t);
      const Arithmetic arithmetic = tile.header->arithmetic;
      if (tile.stored == 1) {
        Isa::template products<1>(arithmetic, tile.values, w, wide.data(), p.padded_depth, sums);
      } else {
        Isa::template products<kTileRows>(arithmetic, tile.values, w, wide.data(), p.padded_depth, sums);
      }
      finish(p, tile, columns, footer, sums);
    }
  }
}

}  // namespace leanmark::int8_linear
