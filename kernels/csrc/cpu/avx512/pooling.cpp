// Pooling for AVX-512.
#define LEANMARK_TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq")))

#include "cpu/pooling/kernel.h"

namespace leanmark::pooling {

const Kernels& kernels_avx512() {
  static constexpr Kernels kernels{largest<16>, mean<16>};
  return kernels;
}

}  // namespace leanmark::pooling
