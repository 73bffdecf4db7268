// Direct convolution for AVX2 and FMA.
#define LEANMARK_TARGET __attribute__((target("avx2,fma")))

#include "cpu/direct_conv2d/kernel.h"

namespace leanmark::direct_conv2d {
namespace {

LEANMARK_TARGET void panels(const Plan& p, const Pixels& pixels, int64_t begin, int64_t end) {
  run<8, 6, 1>(p, pixels, begin, end);
}

}  // namespace

Kernel kernel_avx2() { return panels; }

}  // namespace leanmark::direct_conv2d
