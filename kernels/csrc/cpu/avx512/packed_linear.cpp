// Packed linear layers for AVX-512.
#define LEANMARK_TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq")))

#include "cpu/packed_linear/kernel.h"

namespace leanmark::packed_linear {

Kernel kernel_avx512(Weights weights, int64_t rows) { return kernel_of<16>(weights, rows); }

}  // namespace leanmark::packed_linear
