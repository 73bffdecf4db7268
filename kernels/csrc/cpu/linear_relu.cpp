// relu(input @ weight^T + bias) in fp32, row-major, nothing packed.
//
// Few rows: every output is a dot product of two contiguous rows, so tiles of them are computed straight from
// the weight, which is read once; bias and ReLU are applied in registers. Otherwise torch's own matrix product
// is close to the machine's ceiling and is used, with bias and ReLU in one pass behind it.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <optional>

#include "cpu/capability.h"
#include "cpu/checks.h"
#include "cpu/tensors.h"

namespace leanmark {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// Where the tiles were measured to beat torch's product (Zen 5, one thread).
constexpr int64_t kAlwaysFewRows = 4;
constexpr int64_t kFewRows = 32;
constexpr int64_t kDeep = 256;  // below it, adding up the lanes of a vector costs more than the products
constexpr int64_t kWorkPerThread = 1 << 15;  // multiply-adds that outweigh waking a thread

struct Problem {
  const float* input;   // [rows, depth]
  const float* weight;  // [cols, depth]
  const float* bias;    // [cols], or null
  float* output;        // [rows, cols]
  int64_t rows, cols, depth;
};

// Keeps NaN, as torch does.
inline float relu(float value) { return value < 0.0f ? 0.0f : value; }

template <int kLanes>
struct Vector {
  typedef float type __attribute__((vector_size(kLanes * sizeof(float))));
};

template <int kLanes>
[[gnu::always_inline]] inline float sum_of_lanes(const typename Vector<kLanes>::type& vector) {
  if constexpr (kLanes == 1) {
    return vector[0];
  } else {
    typename Vector<kLanes / 2>::type halves[2];
    std::memcpy(halves, &vector, sizeof(halves));
    return sum_of_lanes<kLanes / 2>(halves[0] + halves[1]);
  }
}

// One kRows x kCols tile of the output from `row`, `col` on; a vector is kLanes wide.
template <int kLanes, int kRows, int kCols>
[[gnu::always_inline]] inline void tile(const Problem& p, int64_t row, int64_t col) {
  using Lanes = typename Vector<kLanes>::type;
  const float* x = p.input + row * p.depth;
  const float* w = p.weight + col * p.depth;
  Lanes sums[kRows][kCols] = {};
  const int64_t whole = p.depth - p.depth % kLanes;
  for (int64_t k = 0; k < whole; k += kLanes) {
    Lanes xs[kRows];
    #pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) std::memcpy(&xs[r], x + r * p.depth + k, sizeof(Lanes));
    #pragma GCC unroll 8
    for (int c = 0; c < kCols; ++c) {
      Lanes ws;
      std::memcpy(&ws, w + c * p.depth + k, sizeof(Lanes));
      #pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) sums[r][c] += xs[r] * ws;
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int c = 0; c < kCols; ++c) {
      float sum = sum_of_lanes<kLanes>(sums[r][c]);
      for (int64_t k = whole; k < p.depth; ++k) sum += x[r * p.depth + k] * w[c * p.depth + k];
      if (p.bias) sum += p.bias[col + c];
      p.output[(row + r) * p.cols + col + c] = relu(sum);
    }
  }
}

template <int kLanes, int kRows, int kCols>
[[gnu::always_inline]] inline void all_rows(const Problem& p, int64_t col) {
  int64_t row = 0;
  for (; row + kRows <= p.rows; row += kRows) tile<kLanes, kRows, kCols>(p, row, col);
  for (; row < p.rows; ++row) tile<kLanes, 1, kCols>(p, row, col);
}

template <int kLanes, int kRows, int kCols>
[[gnu::always_inline]] inline void columns(const Problem& p, int64_t begin, int64_t end) {
  int64_t col = begin;
  for (; col + kCols <= end; col += kCols) all_rows<kLanes, kRows, kCols>(p, col);
  for (; col < end; ++col) all_rows<kLanes, kRows, 1>(p, col);
}

using Columns = void (*)(const Problem&, int64_t, int64_t);

void columns_portable(const Problem& p, int64_t begin, int64_t end) { columns<4, 2, 4>(p, begin, end); }

#if defined(__x86_64__)
__attribute__((target("avx2,fma"))) void columns_avx2(const Problem& p, int64_t begin, int64_t end) {
  columns<8, 3, 4>(p, begin, end);
}

__attribute__((target("avx512f"))) void columns_avx512(const Problem& p, int64_t begin, int64_t end) {
  columns<16, 4, 4>(p, begin, end);
}
#endif

Columns columns_for(Capability capability) {
#if defined(__x86_64__)
  if (capability >= Capability::kAvx512) return columns_avx512;
  if (capability >= Capability::kAvx2) return columns_avx2;
#endif
  (void)capability;
  return columns_portable;
}

bool tiles_pay(int64_t rows, int64_t depth) {
  if (rows <= kAlwaysFewRows) return true;
  return rows <= kFewRows && depth >= kDeep && capability() != Capability::kPortable;
}

void run_tiles(const Problem& p) {
  const Columns run = columns_for(capability());
  const int64_t work = std::max<int64_t>(1, p.rows * p.depth);
  const int64_t grain = std::max<int64_t>(4, kWorkPerThread / work);
  torch::stable::parallel_for(0, p.cols, grain, [&](int64_t begin, int64_t end) { run(p, begin, end); });
}

void add_bias_relu(const Problem& p) {
  const int64_t grain = std::max<int64_t>(1, kWorkPerThread / std::max<int64_t>(1, p.cols));
  torch::stable::parallel_for(0, p.rows, grain, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      float* y = p.output + row * p.cols;
      if (p.bias) {
        for (int64_t col = 0; col < p.cols; ++col) y[col] = relu(y[col] + p.bias[col]);
      } else {
        for (int64_t col = 0; col < p.cols; ++col) y[col] = relu(y[col]);
      }
    }
  });
}

// The Python entry explains mistakes; these keep a direct call through torch.ops from reading stray memory.
void check(const Tensor& input, const Tensor& weight, const std::optional<Tensor>& bias) {
  STD_TORCH_CHECK(input.scalar_type() == ScalarType::Float && weight.scalar_type() == ScalarType::Float,
                  "linear_relu: input and weight must be float32");
  STD_TORCH_CHECK(weight.dim() == 2 && input.dim() >= 1, "linear_relu: input must be [*, K] and weight [N, K]");
  STD_TORCH_CHECK(input.size(input.dim() - 1) == weight.size(1),
                  "linear_relu: the last dimension of input must equal the second of weight");
  check_bias("linear_relu", bias, weight.size(0));
}

Tensor linear_relu(const Tensor& input, const Tensor& weight, const std::optional<Tensor>& bias) {
  check(input, weight, bias);
  const Tensor x = row_major(input), w = row_major(weight);
  const std::optional<Tensor> b = row_major(bias);
  const int64_t cols = w.size(0);
  const int64_t depth = w.size(1);
  const int64_t rows = rows_of(input);

  const bool tiles = tiles_pay(rows, depth);
  const Tensor y = tiles ? allocate_rows(x, cols) : torch::stable::matmul(x, torch::stable::transpose(w, 0, 1));
  const Problem problem{x.const_data_ptr<float>(), w.const_data_ptr<float>(), values_or_null(b),
                        y.mutable_data_ptr<float>(), rows, cols, depth};
  tiles ? run_tiles(problem) : add_bias_relu(problem);
  return y;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(leanmark, CPU, m) { m.impl("linear_relu", TORCH_BOX(&linear_relu)); }

}  // namespace leanmark
