// Pooling for AVX2.
#define LEANMARK_TARGET __attribute__((target("avx2,fma")))

#include "cpu/pooling/kernel.h"

namespace leanmark::pooling {

const Kernels& kernels_avx2() {
  static constexpr Kernels kernels{largest<8>, mean<8>};
  return kernels;
}

}  // namespace leanmark::pooling
