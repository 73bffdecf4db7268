// The operator: checks, and a linear layer as a product with columns.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstring>
#include <optional>

#include "cpu/capability.h"
#include "cpu/checks.h"
#include "cpu/sparse/few_rows_plan.h"
#include "cpu/sparse/operands.h"
#include "cpu/tensors.h"
#include "cpu/threads.h"

namespace leanmark::sparse {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

constexpr const char* kName = "sparse_linear";

// For no rows at all where there is no such kernel.
FewRowsKernel few_rows_kernel([[maybe_unused]] int64_t block) {
#if defined(__x86_64__)
  if (capability() >= Capability::kAvx512) return few_rows_avx512(block);
  if (capability() >= Capability::kAvx2) return few_rows_avx2(block);
#endif
  return {nullptr, 0};
}

// The parts of `packed`, as pack_few_rows in sparse_few_rows.py puts them together.
void read_packed(const Tensor& packed, int64_t block, FewRows& p) {
  const int64_t groups = divide_up(p.columns, kWindow), head = divide_up(8 * (groups + 1), 64) * 64;
  const bool whole = packed.scalar_type() == ScalarType::Byte && packed.dim() == 1 && packed.numel() >= head;
  STD_TORCH_CHECK(whole, "sparse_linear: few_rows must be uint8, as pack_few_rows makes it");
  const uint8_t* bytes = packed.const_data_ptr<uint8_t>();
  p.starts = reinterpret_cast<const int32_t*>(bytes);
  p.steps_count = p.starts[2 * groups];
  p.values_count = p.starts[2 * groups + 1];
  const int64_t values = 4 * (p.values_count + kWindow);
  const int64_t steps = 2 * p.steps_count * (block == 4 ? kStepSize<4> : kStepSize<1>);
  STD_TORCH_CHECK(p.steps_count >= 0 && p.values_count >= 0 && packed.numel() == head + values + steps,
                  "sparse_linear: few_rows must be of the size that its first numbers say");
  p.values = reinterpret_cast<const float*>(bytes + head);
  p.steps = reinterpret_cast<const uint16_t*>(bytes + head + values);
}

void multiply_few_rows(FewRows& p, const Tensor& packed, int64_t block, FewRowsWork work) {
  read_packed(packed, block, p);
  float wide[kMostFewRows * kWindow] = {};
  if (p.stride < kWindow) {  // a window is read as a whole
    for (int64_t row = 0; row < p.rows; ++row) {
      std::memcpy(wide + row * kWindow, p.input + row * p.stride, p.stride * sizeof(float));
    }
    p.input = wide;
    p.stride = kWindow;
  }
  const leanmark::Work all{double(packed.numel()), double(p.steps_count * kWindow * p.rows)};
  parallel_for(divide_up(p.columns, kWindow), all,
               [&](int64_t begin, int64_t end, int64_t) { work(p, begin, end); });
}

Tensor sparse_linear(const Tensor& input, const Tensor& values, const Tensor& indices, const Tensor& starts,
                     const std::optional<Tensor>& bias, const std::optional<Tensor>& residual,
                     int64_t out_features, bool relu, const std::optional<Tensor>& few_rows) {
  STD_TORCH_CHECK(input.scalar_type() == ScalarType::Float && input.dim() >= 1,
                  "sparse_linear: input must be float32 and [*, K]");
  const int64_t depth = input.size(input.dim() - 1);
  const PackedWeights packed{row_major(values), row_major(indices), row_major(starts)};
  Plan plan{};
  plan.weights = packed.checked(kName, out_features, depth, 1);
  check_bias(kName, bias, out_features);
  const Tensor y = allocate_rows(input, out_features);
  check_residual(kName, residual, y.sizes());

  const Tensor x = row_major(input);
  const std::optional<Tensor> b = row_major(bias), r = row_major(residual);
  const int64_t rows = rows_of(input);
  if (rows == 0) return y;
  const int64_t block = plan.weights.block;
  const FewRowsKernel kernel_of_few = few_rows_kernel(block);
  if (few_rows && rows <= kernel_of_few.most_rows) {
    FewRows few{};
    few.input = x.const_data_ptr<float>();
    few.stride = depth;
    few.bias = values_or_null(b);
    few.residual = values_or_null(r);
    few.output = y.mutable_data_ptr<float>();
    few.rows = rows;
    few.columns = out_features;
    few.relu = relu;
    multiply_few_rows(few, row_major(*few_rows), block, kernel_of_few.work);
    return y;
  }
  plan.input = x.const_data_ptr<float>();
  plan.bias = values_or_null(b);
  plan.residual = values_or_null(r);
  plan.output = y.mutable_data_ptr<float>();
  plan.relu = relu;
  plan.grid.phases = plan.grid.taps = 1;
  plan.images = 1;
  plan.columns = rows;
  const Kernel& chosen = kernel(block);
  cut(plan, chosen);
  run(plan, chosen.linear);
  return y;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(leanmark, CPU, m) { m.impl("sparse_linear", TORCH_BOX(&sparse_linear)); }

}  // namespace leanmark::sparse
