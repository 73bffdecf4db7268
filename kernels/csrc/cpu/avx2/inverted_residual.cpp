// Inverted residuals for AVX2 and FMA.
#define LEANMARK_TARGET __attribute__((target("avx2,fma")))

#include "cpu/inverted_residual/kernel.h"

namespace leanmark::inverted_residual {
namespace {

LEANMARK_TARGET void hidden(const Plan& p, const Tile& t, int64_t begin, int64_t end) {
  expand_and_filter<8, 6, 1, 4>(p, t, begin, end);
}

LEANMARK_TARGET void outputs(const Plan& p, const Tile& t, int64_t begin, int64_t end) {
  project<8, 6, 1>(p, t, begin, end);
}

}  // namespace

const Phases& phases_avx2() {
  static constexpr Phases phases{hidden, outputs, 6, 1};
  return phases;
}

}  // namespace leanmark::inverted_residual
