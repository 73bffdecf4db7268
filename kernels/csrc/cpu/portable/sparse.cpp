// Products with sparse weights for any CPU.
#define LEANMARK_TARGET

#include "cpu/sparse/kernel.h"

namespace leanmark::sparse {
namespace {

template <int kBlock, bool kLinear>
LEANMARK_TARGET void work(const Plan& p, int64_t begin, int64_t end, Worker& worker) {
  run<4, kBlock, kLinear>(p, begin, end, worker);
}

LEANMARK_TARGET void planes(const float* from, int64_t pixels, int64_t channels, float* to) {
  transpose_all(from, pixels, channels, to);
}

}  // namespace

Kernel kernel_portable(int64_t block) {
  if (block == 4) return {work<4, true>, work<4, false>, planes, 4, 104, INT32_MAX};
  return {work<1, true>, work<1, false>, planes, 4, 64, INT32_MAX};
}

}  // namespace leanmark::sparse
