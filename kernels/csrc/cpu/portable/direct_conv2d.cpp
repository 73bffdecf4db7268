// Direct convolution for any CPU.
#define LEANMARK_TARGET

#include "cpu/direct_conv2d/kernel.h"

namespace leanmark::direct_conv2d {
namespace {

LEANMARK_TARGET void panels(const Plan& p, const Pixels& pixels, int64_t begin, int64_t end) {
  run<4, 2, 1>(p, pixels, begin, end);
}

}  // namespace

Kernel kernel_portable() { return panels; }

}  // namespace leanmark::direct_conv2d
