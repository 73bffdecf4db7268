// Packed linear layers for any CPU.
#define LEANMARK_TARGET

#include "cpu/packed_linear/kernel.h"

namespace leanmark::packed_linear {

Kernel kernel_portable(Weights weights, int64_t rows) { return kernel_of<4>(weights, rows); }

}  // namespace leanmark::packed_linear
