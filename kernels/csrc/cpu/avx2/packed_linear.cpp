// Packed linear layers for AVX2 and FMA.
#define LEANMARK_TARGET __attribute__((target("avx2,fma")))

#include "cpu/packed_linear/kernel.h"

namespace leanmark::packed_linear {

Kernel kernel_avx2(Weights weights, int64_t rows) { return kernel_of<8>(weights, rows); }

}  // namespace leanmark::packed_linear
