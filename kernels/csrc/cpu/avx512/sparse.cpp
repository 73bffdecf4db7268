// Products with sparse weights for AVX-512.
#define LEANMARK_TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq")))

#include "cpu/sparse/kernel.h"

namespace leanmark::sparse {
namespace {

template <int kBlock, bool kLinear>
LEANMARK_TARGET void work(const Plan& p, int64_t worker, int64_t workers, float* scratch) {
  run<16, kBlock, kLinear>(p, worker, workers, scratch);
}

}  // namespace

Kernel kernel_avx512(int64_t block) {
  if (block == 4) return {work<4, true>, work<4, false>, 16, 96};
  return {work<1, true>, work<1, false>, 16, 128};
}

}  // namespace leanmark::sparse
