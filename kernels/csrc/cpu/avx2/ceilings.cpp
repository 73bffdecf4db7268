// The ceilings of AVX2 and FMA.
#define LEANMARK_TARGET __attribute__((target("avx2,fma")))

#include "cpu/ceilings/kernel.h"

namespace leanmark::ceilings {
namespace {

LEANMARK_TARGET LEANMARK_OUTLINE float multiply_adds_here(int64_t steps) { return multiply_adds<8>(steps); }

LEANMARK_TARGET LEANMARK_OUTLINE float read_here(const float* from, int64_t count) {
  return read<8>(from, count);
}

}  // namespace

Kernels kernels_avx2() { return {multiply_adds_here, read_here, flops_per_step<8>()}; }

}  // namespace leanmark::ceilings
