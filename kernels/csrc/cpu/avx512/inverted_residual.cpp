// Inverted residuals for AVX-512.
#define LEANMARK_TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq")))

#include "cpu/inverted_residual/kernel.h"

namespace leanmark::inverted_residual {
namespace {

LEANMARK_TARGET void hidden(const Plan& p, const Tile& t, int64_t begin, int64_t end) {
  expand_and_filter<16, 8, 2, 4>(p, t, begin, end);
}

LEANMARK_TARGET void outputs(const Plan& p, const Tile& t, int64_t begin, int64_t end) {
  project<16, 8, 2>(p, t, begin, end);
}

}  // namespace

const Phases& phases_avx512() {
  static constexpr Phases phases{hidden, outputs, 8, 2};
  return phases;
}

}  // namespace leanmark::inverted_residual
