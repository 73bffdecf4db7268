// Products with sparse weights for AVX-512.
#define LEANMARK_TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq")))

#include "cpu/sparse/kernel.h"

namespace leanmark::sparse {
namespace {

template <int kBlock, bool kLinear>
LEANMARK_TARGET void work(const Plan& p, int64_t begin, int64_t end, float* scratch) {
  run<16, kBlock, kLinear>(p, begin, end, scratch);
}

LEANMARK_TARGET void planes(const float* from, int64_t pixels, int64_t channels, float* to) {
  transpose_all(from, pixels, channels, to);
}

}  // namespace

Kernel kernel_avx512(int64_t block) {
  if (block == 4) return {work<4, true>, work<4, false>, planes, 16, 128};
  return {work<1, true>, work<1, false>, planes, 16, 128};
}

}  // namespace leanmark::sparse
