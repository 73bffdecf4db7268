// Direct convolution for AVX-512.
#define LEANMARK_TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq")))

#include "cpu/direct_conv2d/kernel.h"

namespace leanmark::direct_conv2d {
namespace {

LEANMARK_TARGET void panels(const Plan& p, const Pixels& pixels, int64_t begin, int64_t end) {
  run<16, 12, 2>(p, pixels, begin, end);
}

}  // namespace

Kernel kernel_avx512() { return panels; }

}  // namespace leanmark::direct_conv2d
