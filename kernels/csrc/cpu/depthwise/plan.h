// A 3x3 convolution of every channel by itself, NHWC.
#pragma once

#include <cstdint>

#include "cpu/activation.h"
#include "cpu/capability.h"

namespace leanmark::depthwise {

// Channels that one item covers: whole cache lines of every pixel, and few enough rows for a core's own cache.
constexpr int64_t kChunk = 128;

// One or two rows of output, and the three or more rows of input under them.
struct Rows {
  const float* input[4];  // null where a row lies outside of the image
  float* output[2];
  int64_t count;  // of output rows
};

struct Plan {
  const float* weight;  // [9, channels]
  const float* bias;    // [channels], or null
  int64_t channels, width, out_width;
  int64_t stride, padding;
  Range kept;  // by the activation
};

// Channels [begin, end) of `rows`.
using Kernel = void (*)(const Plan&, const Rows& rows, int64_t begin, int64_t end);

Kernel kernel();
Kernel kernel_portable();
#if defined(__x86_64__)
Kernel kernel_avx2();
Kernel kernel_avx512();
#endif

// Rows of output computed together: neighbours share input, unless the stride leaves little of it.
inline int64_t rows_at_once(int64_t stride) { return stride == 1 ? 2 : 1; }

}  // namespace leanmark::depthwise
