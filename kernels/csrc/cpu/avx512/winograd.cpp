// Winograd convolution for AVX-512.
#define LEANMARK_TARGET __attribute__((target("avx512f")))

#include "cpu/winograd/as_stored.h"
#include "cpu/winograd/kernel.h"

namespace leanmark::winograd {
namespace {

template <class Tile>
LEANMARK_TARGET void inputs(const Plan& p, const Block& block, int64_t begin, int64_t end) {
  transform_inputs<16, Tile>(p, block, begin, end);
}

LEANMARK_TARGET void products(const Plan& p, const Block& block, int64_t begin, int64_t end) {
  multiply<16, 12, 2>(p, block, begin, end);
}

LEANMARK_TARGET void products_as_stored(const Plan& p, const Block& block, int64_t begin, int64_t end) {
  multiply_as_stored<16, 4>(p, block, begin, end);
}

template <class Tile>
LEANMARK_TARGET void outputs(const Plan& p, const Block& block, int64_t begin, int64_t end) {
  transform_outputs<16, Tile>(p, block, begin, end);
}

template <class Tile>
constexpr Phases kPhases{inputs<Tile>, products, outputs<Tile>, 2, 1};
constexpr Phases kAsStored{inputs<F4>, products_as_stored, nullptr, 1, 4};

}  // namespace

const Phases& phases_avx512(Form form) {
  switch (form) {
    case Form::kF2: return kPhases<F2>;
    case Form::kF4: return kPhases<F4>;
    case Form::kF4AsStored: return kAsStored;
    case Form::kF3: return kPhases<F3>;
    default: return kPhases<Stride2>;
  }
}

}  // namespace leanmark::winograd
