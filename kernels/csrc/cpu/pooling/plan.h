// Pooling over pixels, channel by channel, NHWC.
#pragma once

#include <cstdint>

#include "cpu/capability.h"

namespace leanmark::pooling {

// The largest of `count` pixels for each of `channels`; NaN where one is.
using Largest = void (*)(const float* const* pixels, int64_t count, int64_t channels, float* to);

// The mean of `count` pixels that lie `stride` floats apart, for each of `channels`.
using Mean = void (*)(const float* pixels, int64_t count, int64_t stride, int64_t channels, float* to);

struct Kernels {
  Largest largest;
  Mean mean;
};

const Kernels& kernels_portable();
#if defined(__x86_64__)
const Kernels& kernels_avx2();
const Kernels& kernels_avx512();
#endif

}  // namespace leanmark::pooling
