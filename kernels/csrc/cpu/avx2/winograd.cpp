// Winograd convolution for AVX2 and FMA.
#define LEANMARK_TARGET __attribute__((target("avx2,fma")))

#include "cpu/winograd/kernel.h"

namespace leanmark::winograd {
namespace {

template <class Tile>
LEANMARK_TARGET void inputs(const Plan& p, const Block& block, int64_t begin, int64_t end) {
  transform_inputs<8, Tile>(p, block, begin, end);
}

LEANMARK_TARGET void products(const Plan& p, const Block& block, int64_t begin, int64_t end) {
  multiply<8, 6, 1>(p, block, begin, end);
}

template <class Tile>
LEANMARK_TARGET void outputs(const Plan& p, const Block& block, int64_t begin, int64_t end) {
  transform_outputs<8, Tile>(p, block, begin, end);
}

}  // namespace

const Phases& phases_avx2(bool large) {
  static constexpr Phases f2{inputs<F2>, products, outputs<F2>, 1};
  static constexpr Phases f4{inputs<F4>, products, outputs<F4>, 1};
  return large ? f4 : f2;
}

}  // namespace leanmark::winograd
