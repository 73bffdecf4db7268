// Depthwise convolution for AVX-512.
#define LEANMARK_TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq")))

#include "cpu/depthwise/kernel.h"

namespace leanmark::depthwise {
namespace {

LEANMARK_TARGET void rows(const Plan& p, const Rows& rows, int64_t begin, int64_t end) {
  run<16, 4, 6>(p, rows, begin, end);
}

}  // namespace

Kernel kernel_avx512() { return rows; }

}  // namespace leanmark::depthwise
