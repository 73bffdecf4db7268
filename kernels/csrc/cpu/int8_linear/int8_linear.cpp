// Linear layers on 8-bit integers, and on floats that are rounded to them on the way.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <optional>

#include "cpu/checks.h"
#include "cpu/int8_linear/run.h"
#include "cpu/tensors.h"
#include "cpu/zero_point.h"

namespace leanmark::int8_linear {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// The output, and the part of a plan that does not depend on what the input holds.
struct Layer {
  const Tensor weight, scale;
  const std::optional<Tensor> bias;
  const Tensor output;
  Plan plan{};

  Layer(const char* name, const Tensor& input, const Tensor& packed, const Tensor& scales,
        const std::optional<Tensor>& biases, int64_t columns, bool relu)
      : weight(row_major(packed)), scale(row_major(scales)), bias(row_major(biases)),
        output(checked(name, input, packed, scales, biases, columns)) {
    plan.depth = input.size(input.dim() - 1);
    plan.rows = rows_of(input);
    plan.weight = weight.const_data_ptr<int8_t>();
    plan.scale = scale.const_data_ptr<float>();
    plan.bias = values_or_null(bias);
    plan.output = output.mutable_data_ptr<float>();
    plan.columns = plan.output_stride = columns;
    plan.relu = relu;
  }

  bool is_empty() const { return plan.rows == 0 || plan.columns == 0; }

 private:
  static Tensor checked(const char* name, const Tensor& input, const Tensor& weight, const Tensor& scale,
                        const std::optional<Tensor>& bias, int64_t columns) {
    const int64_t depth = input.size(input.dim() - 1);
    STD_TORCH_CHECK(columns >= 0 && weight.scalar_type() == ScalarType::Char && weight.dim() == 2 &&
                        weight.size(0) == panels_for(columns) && weight.size(1) == panel_bytes_for(depth),
                    name, ": weight must be packed for the K of input and for out_features");
    check_layer(name, scale, bias, depth, columns);
    return allocate_rows(input, columns);
  }
};

Tensor int8_linear(const Tensor& input, const Tensor& weight, const Tensor& scale, const Tensor& input_scale,
                   int64_t zero_point, const std::optional<Tensor>& bias, int64_t out_features, bool relu) {
  STD_TORCH_CHECK((input.scalar_type() == ScalarType::Char || input.scalar_type() == ScalarType::Byte) &&
                      input.dim() >= 1,
                  "int8_linear: input must be int8 or uint8 and [*, K]");
  STD_TORCH_CHECK(is_value(input, zero_point), "int8_linear: zero_point must be a value of input's dtype");
  Layer layer("int8_linear", input, weight, scale, bias, out_features, relu);
  Plan& plan = layer.plan;
  STD_TORCH_CHECK(is_vector(input_scale, 1) || is_vector(input_scale, plan.rows),
                  "int8_linear: input_scale must be float32 and [1] or [rows]");
  if (layer.is_empty()) return layer.output;
  const Tensor x = row_major(input), xs = row_major(input_scale);
  plan.input = x.const_data_ptr();
  plan.is_unsigned = x.scalar_type() == ScalarType::Byte;
  plan.zero_point = zero_point;
  plan.input_scale = xs.const_data_ptr<float>();
  plan.rows_per_scale = xs.size(0) == 1 ? plan.rows : 1;
  run(plan);
  return layer.output;
}

Tensor int8_dynamic_linear(const Tensor& input, const Tensor& weight, const Tensor& scale,
                           const std::optional<Tensor>& bias, int64_t bits, int64_t out_features, bool relu) {
  STD_TORCH_CHECK(input.scalar_type() == ScalarType::Float && input.dim() >= 1,
                  "int8_dynamic_linear: input must be float32 and [*, K]");
  STD_TORCH_CHECK(bits == 7 || bits == 8, "int8_dynamic_linear: bits must be 7 or 8");
  Layer layer("int8_dynamic_linear", input, weight, scale, bias, out_features, relu);
  if (layer.is_empty()) return layer.output;
  const Tensor x = row_major(input);
  run_dynamic(layer.plan, x.const_data_ptr<float>(), bits);
  return layer.output;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(leanmark, CPU, m) {
  m.impl("int8_linear", TORCH_BOX(&int8_linear));
  m.impl("int8_dynamic_linear", TORCH_BOX(&int8_dynamic_linear));
}

}  // namespace leanmark::int8_linear
