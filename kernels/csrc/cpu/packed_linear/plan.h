// One packed linear layer: few rows times weights in panels.
#pragma once

#include <cstdint>
#include <limits>

#include "cpu/capability.h"

namespace leanmark::packed_linear {

enum class Weights { kFloat32, kFloat16, kBFloat16, kInt8 };

struct Plan {
  const float* input;   // [rows, depth], rows input_stride apart
  int64_t input_stride;
  const void* weight;   // [panels, depth, kPanelWidth], as the structures in panels.h say
  const float* scale;   // [columns], or null: the factor of each column
  const float* bias;    // [columns], or null
  float* output;        // [rows, columns]
  int64_t rows, depth, columns;
  bool relu;
  float most = std::numeric_limits<float>::infinity();  // outputs are cut off above it
  const float* residual = nullptr;                      // as output, or null

  const int8_t* planes = nullptr;  // the input in bytes, for the kernel that wants it so
  int32_t plane_sums[4] = {};
  float unit = 1.0f;               // what 1 in the lowest of these bytes is
};

// Panels [begin, end); they may be shared out over threads in multiples of `at_once`.
using Panels = void (*)(const Plan&, int64_t begin, int64_t end);

struct Kernel {
  Panels run = nullptr;
  int64_t at_once = 1;
};

// The bytes of memory in which a row of `depth` is taken apart.
inline int64_t planes_bytes(int64_t depth) { return (depth + 15) / 16 * 64; }

// The one for this CPU.
Kernel kernel(Weights weights, int64_t rows);

Kernel kernel_portable(Weights weights, int64_t rows);
#if defined(__x86_64__)
Kernel kernel_avx2(Weights weights, int64_t rows);
Kernel kernel_avx512(Weights weights, int64_t rows);

// For one row and int8: takes the row apart in planes, planes_bytes(depth) of memory. Without run where the row
// does not allow it: longer than 65536, not finite, or nothing in it above 2^-90.
Kernel byte_kernel_avx512vnni(Plan& plan, int8_t* planes);
#endif

}  // namespace leanmark::packed_linear
