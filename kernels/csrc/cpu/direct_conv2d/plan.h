// A convolution as products of windows that lie in the image with weights in panels, NHWC.
#pragma once

#include <cstdint>

#include "cpu/activation.h"
#include "cpu/capability.h"

namespace leanmark::direct_conv2d {

struct Plan {
  const float* weight;  // [panels, kernel_height, depth, kPanelWidth]
  const float* bias;    // [out_channels], or null
  int64_t out_channels;
  int64_t kernel_height, depth;  // a row of a window: kernel_width pixels, which lie together
  int64_t row_stride;            // floats from one row of a window to the next
  int64_t window_stride;         // floats from one window to the next
  Range kept;                    // by the activation
};

// Outputs that lie together.
struct Pixels {
  const float* input;     // the corner of the first one's window
  const float* residual;  // as output, or null
  float* output;          // [count, out_channels]
  int64_t count;
};

// Panels [begin, end) of `pixels`.
using Kernel = void (*)(const Plan&, const Pixels& pixels, int64_t begin, int64_t end);

Kernel kernel_portable();
#if defined(__x86_64__)
Kernel kernel_avx2();
Kernel kernel_avx512();
#endif

}  // namespace leanmark::direct_conv2d
