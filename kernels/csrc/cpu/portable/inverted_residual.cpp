// Inverted residuals for any CPU.
#define LEANMARK_TARGET

#include "cpu/inverted_residual/kernel.h"

namespace leanmark::inverted_residual {
namespace {

LEANMARK_TARGET void hidden(const Plan& p, const Tile& t, int64_t begin, int64_t end) {
  expand_and_filter<4, 2, 1, 2>(p, t, begin, end);
}

LEANMARK_TARGET void outputs(const Plan& p, const Tile& t, int64_t begin, int64_t end) {
  project<4, 2, 1>(p, t, begin, end);
}

}  // namespace

const Phases& phases_portable() {
  static constexpr Phases phases{hidden, outputs, 2, 1};
  return phases;
}

}  // namespace leanmark::inverted_residual
