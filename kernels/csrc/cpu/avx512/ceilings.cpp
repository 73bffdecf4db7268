// The ceilings of AVX-512.
#define LEANMARK_TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq")))

#include "cpu/ceilings/kernel.h"

namespace leanmark::ceilings {
namespace {

LEANMARK_TARGET LEANMARK_OUTLINE float multiply_adds_here(int64_t steps) { return multiply_adds<16>(steps); }

LEANMARK_TARGET LEANMARK_OUTLINE float read_here(const float* from, int64_t count) {
  return read<16>(from, count);
}

}  // namespace

Kernels kernels_avx512() { return {multiply_adds_here, read_here, flops_per_step<16>()}; }

}  // namespace leanmark::ceilings
