// The operator: checks, and a linear layer as a product with columns.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <vector>

#include "cpu/sparse/operands.h"
#include "cpu/tensors.h"

namespace leanmark::sparse {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

constexpr const char* kName = "sparse_linear";

Tensor sparse_linear(const Tensor& input, const Tensor& values, const Tensor& indices, const Tensor& starts,
                     const std::optional<Tensor>& bias, const std::optional<Tensor>& residual,
                     int64_t out_features, bool relu) {
  STD_TORCH_CHECK(input.scalar_type() == ScalarType::Float && input.dim() >= 1,
                  "sparse_linear: input must be float32 and [*, K]");
  std::vector<int64_t> shape(input.sizes().begin(), input.sizes().end());
  const int64_t depth = shape.back();
  shape.back() = out_features;
  const PackedWeights packed{row_major(values), row_major(indices), row_major(starts)};
  Plan plan{};
  plan.weights = packed.checked(kName, out_features, depth, 1);
  check_bias(kName, bias, out_features);
  check_residual(kName, residual, shape);

  const Tensor x = row_major(input);
  const std::optional<Tensor> b = row_major(bias), r = row_major(residual);
  const Tensor y = torch::stable::new_empty(x, shape);
  int64_t rows = 1;
  for (size_t i = 0; i + 1 < shape.size(); ++i) rows *= shape[i];
  if (rows == 0) return y;
  plan.input = x.const_data_ptr<float>();
  plan.bias = values_or_null(b);
  plan.residual = values_or_null(r);
  plan.output = y.mutable_data_ptr<float>();
  plan.relu = relu;
  plan.grid.phases = plan.grid.taps = 1;
  plan.images = 1;
  plan.columns = rows;
  const Kernel& chosen = kernel(plan.weights.block);
  cut(plan, chosen);
  run(plan, chosen.linear, x);
  return y;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(leanmark, CPU, m) { m.impl("sparse_linear", TORCH_BOX(&sparse_linear)); }

}  // namespace leanmark::sparse
