// Depthwise convolution for any CPU.
#define LEANMARK_TARGET

#include "cpu/depthwise/kernel.h"

namespace leanmark::depthwise {
namespace {

LEANMARK_TARGET void rows(const Plan& p, const Rows& rows, int64_t begin, int64_t end) {
  run<4, 3, 4>(p, rows, begin, end);
}

}  // namespace

Kernel kernel_portable() { return rows; }

}  // namespace leanmark::depthwise
