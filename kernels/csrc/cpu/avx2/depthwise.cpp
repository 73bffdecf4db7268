// Depthwise convolution for AVX2 and FMA.
#define LEANMARK_TARGET __attribute__((target("avx2,fma")))

#include "cpu/depthwise/kernel.h"

namespace leanmark::depthwise {
namespace {

LEANMARK_TARGET void rows(const Plan& p, const Rows& rows, int64_t begin, int64_t end) {
  run<8, 3, 4>(p, rows, begin, end);
}

}  // namespace

Kernel kernel_avx2() { return rows; }

}  // namespace leanmark::depthwise
