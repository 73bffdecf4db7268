// Products with sparse weights for AVX2 and FMA.
#define LEANMARK_TARGET __attribute__((target("avx2,fma")))

#include "cpu/sparse/kernel.h"

namespace leanmark::sparse {
namespace {

template <int kBlock, bool kLinear>
LEANMARK_TARGET void work(const Plan& p, int64_t begin, int64_t end, Worker& worker) {
  run<8, kBlock, kLinear>(p, begin, end, worker);
}

LEANMARK_TARGET void planes(const float* from, int64_t pixels, int64_t channels, float* to) {
  transpose_all(from, pixels, channels, to);
}

}  // namespace

Kernel kernel_avx2(int64_t block) {
  if (block == 4) return {work<4, true>, work<4, false>, planes, 8, 104, INT32_MAX};
  return {work<1, true>, work<1, false>, planes, 8, 64, INT32_MAX};
}

}  // namespace leanmark::sparse
