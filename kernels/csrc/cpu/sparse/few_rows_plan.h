// A product of few rows with sparse weights, in the layout for that: sparse_few_rows.py packs it.
#pragma once

#include <cstdint>

namespace leanmark::sparse {

constexpr int64_t kWindow = 16;  // outputs of a group, and inputs that a step can reach

// 16-bit numbers of a step. Single entries: the mask of the outputs that have a value, where the window begins,
// and for each output 4 bits that say which input of the window it takes. Blocks of four outputs: where the window
// begins, and 4 bits for each block; every output has a value, since masks would take longer than the few zeros.
template <int kBlock>
constexpr int64_t kStepSize = kBlock == 1 ? 6 : 2;

struct FewRows {
  const int32_t* starts;  // [groups + 1, 2]: the first step and the first value of each group
  const float* values;    // [values_count], and kWindow more that may be read
  const uint16_t* steps;  // [steps_count, kStepSize]
  int64_t values_count, steps_count;
  const float* input;  // [rows, stride], stride at least kWindow
  int64_t stride;
  const float* bias;      // [columns], or null
  const float* residual;  // as output, or null
  float* output;          // [rows, columns]
  int64_t rows, columns;
  bool relu;
};

// Groups [begin, end) of outputs.
using FewRowsWork = void (*)(const FewRows&, int64_t begin, int64_t end);

struct FewRowsKernel {
  FewRowsWork work;
  int64_t most_rows;  // with more, the columns of kernel.h are faster
};
constexpr int64_t kMostFewRows = 16;  // that any of them takes

#if defined(__x86_64__)
FewRowsKernel few_rows_avx2(int64_t block);
FewRowsKernel few_rows_avx512(int64_t block);
#endif

}  // namespace leanmark::sparse
