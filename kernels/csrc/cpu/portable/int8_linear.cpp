// Exact 8-bit linear layers for any CPU.
#include "cpu/int8_linear/kernel.h"

namespace leanmark::int8_linear {
namespace {

struct Portable {
  template <class From>
  static void pack8(const From* const (&rows)[kTileRows], int64_t depth, int64_t padded_depth, uint8_t* to,
                    int32_t shift) {
    pack_rows(rows, depth, padded_depth, to, shift);
  }

  template <class From>
  static void pack16(const From* const (&rows)[kTileRows], int64_t depth, int64_t padded_depth, int16_t* to) {
    pack_rows(rows, depth, padded_depth, to, 0);
  }

  static void widen(const int8_t*, int64_t, int16_t*) {}

  template <int kRows>
  static void products(Arithmetic arithmetic, const char* x, const int8_t* w, const int16_t*, int64_t depth,
                       int32_t* sums) {
    if (arithmetic == Arithmetic::kWide) {
      static constexpr int kPlaces[] = {0, 2, 1, 3};
      add_all<kRows>(reinterpret_cast<const int16_t*>(x), kPlaces, w, depth, sums);
    } else {
      static constexpr int kPlaces[] = {0, 1, 2, 3};
      add_all<kRows>(reinterpret_cast<const uint8_t*>(x), kPlaces, w, depth, sums);
    }
  }

 private:
  // Sums wrap around as those of the vector units do: with a shift, they may until it is taken off.
  template <int kRows, class Value>
  static void add_all(const Value* x, const int* places, const int8_t* w, int64_t depth, int32_t* sums) {
    for (int r = 0; r < kRows; ++r) {
      uint32_t totals[kPanelWidth] = {};
      for (int64_t k = 0; k < depth; k += 4) {
        const Value* four = x + k * kRows + 4 * r;
        for (int c = 0; c < kPanelWidth; ++c) {
          for (int u = 0; u < 4; ++u) {
            totals[c] += static_cast<uint32_t>(four[places[u]] * w[k * kPanelWidth + 4 * c + u]);
          }
        }
      }
      std::memcpy(sums + r * kPanelWidth, totals, sizeof(totals));
    }
  }
};

void pack_tiles(const Plan& p, int64_t begin, int64_t end) { pack<Portable>(p, begin, end); }

void multiply_items(const Plan& p, int64_t begin, int64_t end) { multiply<Portable>(p, begin, end); }

}  // namespace

const Kernel& kernel_portable() {
  static constexpr Kernel kernel = by_limits(pack_tiles, multiply_items);
  return kernel;
}

}  // namespace leanmark::int8_linear
