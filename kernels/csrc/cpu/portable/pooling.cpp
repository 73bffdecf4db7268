// Pooling for any CPU.
#define LEANMARK_TARGET

#include "cpu/pooling/kernel.h"

namespace leanmark::pooling {

const Kernels& kernels_portable() {
  static constexpr Kernels kernels{largest<4>, mean<4>};
  return kernels;
}

}  // namespace leanmark::pooling
