// Exact 8-bit linear layers for AVX-512 with VNNI: unsigned rows times signed weights, four products added to 32
// bits by one instruction that never saturates.
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <limits>
#include <utility>

#include "cpu/avx512vnni/int8_sums.h"
#include "cpu/int8_linear/patches.h"
#include "cpu/int8_linear/plan.h"

namespace leanmark::int8_linear {
namespace {

constexpr int kMostRows = 12;  // times two panels: 24 sums, which leaves registers for the operands
constexpr int kSignedShift = -128;

uint8_t* packed_row(const Plan& p, int64_t row) {
  return reinterpret_cast<uint8_t*>(p.scratch) + (row - p.first_tile * p.tile_rows) * p.row_bytes;
}

// Up to 64.
__mmask64 first_bytes(int64_t count) { return count == 0 ? 0 : ~uint64_t{0} >> (64 - count); }

LEANMARK_TARGET void copy(const uint8_t* from, int64_t count, int flip_bits, uint8_t* to) {
  const __m512i flip = _mm512_set1_epi8(static_cast<char>(flip_bits));
  for (; count > 64; count -= 64, from += 64, to += 64) {
    _mm512_storeu_si512(to, _mm512_xor_si512(_mm512_loadu_si512(from), flip));
  }
  const __mmask64 rest = first_bytes(count);
  _mm512_mask_storeu_epi8(to, rest, _mm512_xor_si512(_mm512_maskz_loadu_epi8(rest, from), flip));
}

LEANMARK_TARGET void fill(int value, int64_t count, uint8_t* to) {
  const __m512i values = _mm512_set1_epi8(static_cast<char>(value));
  for (; count > 64; count -= 64, to += 64) _mm512_storeu_si512(to, values);
  _mm512_mask_storeu_epi8(to, first_bytes(count), values);
}

void pack_patches(const Plan& p, int64_t begin, int64_t end, int flip) {
  const Patches& patches = *p.patches;
  const auto* images = static_cast<const uint8_t*>(p.input);
  Pixel at(patches, begin);
  for (int64_t row = begin; row < end; ++row, at.advance(patches)) {
    gather(patches, images, at, packed_row(p, row),
           [&](const uint8_t* from, int64_t count, uint8_t* to) { copy(from, count, flip, to); },
           [&](int64_t count, uint8_t* to) { fill(static_cast<int>(p.zero_point) ^ flip, count, to); });
  }
}

// Rows less their shift, filled up with zeros.
void pack_tiles(const Plan& p, int64_t begin, int64_t end) {
  const int flip = p.is_unsigned ? 0 : kSignedShift;
  const int64_t first = begin * p.tile_rows, last = std::min(p.rows, end * p.tile_rows);
  if (p.patches) {
    pack_patches(p, first, last, flip);
  } else {
    for (int64_t row = first; row < last; ++row) {
      copy(static_cast<const uint8_t*>(p.input) + row * p.depth, p.depth, flip, packed_row(p, row));
    }
  }
  if (p.padded_depth == p.depth) return;
  for (int64_t row = first; row < last; ++row) {
    std::memset(packed_row(p, row) + p.depth, 0, p.padded_depth - p.depth);
  }
}

// The columns of a panel, filled up with zeros.
struct Columns {
  int64_t first;
  __mmask16 present;
  __m512 scale, bias, floor;
  __m512i shifted;

  LEANMARK_TARGET LEANMARK_INLINE Columns(const Plan& p, int64_t panel)
      : first(panel * kPanelWidth),
        present(static_cast<__mmask16>((1u << std::min<int64_t>(kPanelWidth, p.columns - first)) - 1)) {
    scale = _mm512_maskz_loadu_ps(present, p.scale + first);
    bias = p.bias ? _mm512_maskz_loadu_ps(present, p.bias + first) : _mm512_setzero_ps();
    floor = _mm512_set1_ps(p.relu ? 0.0f : -std::numeric_limits<float>::infinity());
    const int shift = (p.is_unsigned ? 0 : kSignedShift) - static_cast<int>(p.zero_point);
    const __m512i column_sums = _mm512_loadu_si512(p.weight + panel * p.panel_bytes + p.padded_depth * kPanelWidth);
    shifted = _mm512_mullo_epi32(column_sums, _mm512_set1_epi32(shift));
  }

  // The rounding of every step is that of the reference, so no two steps may be fused.
  LEANMARK_TARGET LEANMARK_INLINE void finish(const Plan& p, int64_t row, float row_scale, __m512i sums) const {
    const auto sum = reinterpret_cast<Vector<kPanelWidth, int32_t>>(_mm512_add_epi32(sums, shifted));
    __m512 value = __builtin_convertvector(sum, Vector<kPanelWidth>) * (_mm512_set1_ps(row_scale) * scale);
    asm("" : "+v"(value));
    value = value + bias;
    value = _mm512_mask_mov_ps(value, _mm512_cmp_ps_mask(value, floor, _CMP_LT_OQ), floor);  // keeps NaN
    _mm512_mask_storeu_ps(p.output + row * p.output_stride + first, present, value);
  }
};

// The scales of consecutive rows, by one division.
class RowScales {
 public:
  LEANMARK_INLINE RowScales(const Plan& p, int64_t row)
      : per_scale_(p.rows_per_scale), at_(p.input_scale + row / per_scale_), left_(per_scale_ - row % per_scale_) {}

  LEANMARK_INLINE float next() {
    if (left_ == 0) {
      left_ = per_scale_;
      ++at_;
    }
    --left_;
    return *at_;
  }

 private:
  const int64_t per_scale_;
  const float* at_;
  int64_t left_;
};

template <int kRows, int kPanels>
LEANMARK_TARGET LEANMARK_OUTLINE void products(const Plan& p, int64_t row, const uint8_t* x, int64_t panel) {
  Int8Sums<Bytes, kRows, kPanels> of;
  of.add_all(x, p.row_bytes, p.weight + panel * p.panel_bytes, p.panel_bytes, p.padded_depth / 4);
  #pragma GCC unroll 4
  for (int v = 0; v < kPanels; ++v) {
    const Columns columns(p, panel + v);
    RowScales scales(p, row);
    #pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) columns.finish(p, row + r, scales.next(), of.sums[0][r][v]);
  }
}

using Products = void (*)(const Plan&, int64_t row, const uint8_t* x, int64_t panel);

template <int kPanels, int... kRows>
constexpr std::array<Products, sizeof...(kRows)> products_of(std::integer_sequence<int, kRows...>) {
  return {products<kRows + 1, kPanels>...};
}

template <int kPanels, int kMost>
constexpr auto kProducts = products_of<kPanels>(std::make_integer_sequence<int, kMost>());  // by rows, from one on

constexpr int64_t kItemPanels = 2, kPanelsAtOnce = 4, kFewRows = 2;

// A row or two are bound by reading the weights: that is faster from several panels side by side.
LEANMARK_TARGET void multiply_panels(const Plan& p, int64_t panel, int64_t last) {
  for (; panel + kPanelsAtOnce <= last; panel += kPanelsAtOnce) {
    kProducts<kPanelsAtOnce, kFewRows>[p.rows - 1](p, 0, packed_row(p, 0), panel);
  }
  for (; panel < last; ++panel) kProducts<1, kFewRows>[p.rows - 1](p, 0, packed_row(p, 0), panel);
}

LEANMARK_TARGET void multiply_items(const Plan& p, int64_t begin, int64_t end) {
  const int64_t groups = (p.panels + kItemPanels - 1) / kItemPanels;
  if (p.rows <= kFewRows) return multiply_panels(p, begin * kItemPanels, std::min(end * kItemPanels, p.panels));
  for (int64_t item = begin; item < end; ++item) {
    const int64_t first = item / groups * p.block_tiles, last = std::min(p.tiles, first + p.block_tiles);
    const int64_t panel = item % groups * kItemPanels, panels = std::min(kItemPanels, p.panels - panel);
    const auto& of = panels == kItemPanels ? kProducts<kItemPanels, kMostRows> : kProducts<1, kMostRows>;
    for (int64_t tile = first; tile < last; ++tile) {
      const int64_t row = tile * p.tile_rows, rows = std::min(p.tile_rows, p.rows - row);
      of[rows - 1](p, row, packed_row(p, row), panel);
    }
  }
}

}  // namespace

const Kernel& kernel_avx512vnni() {
  static constexpr Kernel kernel{pack_tiles, multiply_items, kItemPanels, kMostRows, 256 * 1024, false};
  return kernel;
}

}  // namespace leanmark::int8_linear
