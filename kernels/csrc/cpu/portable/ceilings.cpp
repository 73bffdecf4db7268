// The ceilings of any CPU.
#define LEANMARK_TARGET

#include "cpu/ceilings/kernel.h"

namespace leanmark::ceilings {
namespace {

LEANMARK_TARGET LEANMARK_OUTLINE float multiply_adds_here(int64_t steps) { return multiply_adds<4>(steps); }

LEANMARK_TARGET LEANMARK_OUTLINE float read_here(const float* from, int64_t count) {
  return read<4>(from, count);
}

}  // namespace

Kernels kernels_portable() { return {multiply_adds_here, read_here, flops_per_step<4>()}; }

}  // namespace leanmark::ceilings
