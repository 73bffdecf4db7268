// Checks that several operators share. The Python entries explain mistakes; these keep a direct call through torch.ops
// from reading stray memory.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstdint>
#include <optional>

namespace leanmark {

inline bool is_vector(const torch::stable::Tensor& values, int64_t length) {
  return values.scalar_type() == torch::headeronly::ScalarType::Float && values.dim() == 1 &&
         values.size(0) == length;
}

inline void check_bias(const char* name, const std::optional<torch::stable::Tensor>& bias, int64_t outputs) {
  STD_TORCH_CHECK(!bias || is_vector(*bias, outputs), name, ": bias must be float32, one value for each output");
}

// `shape` is that of the output.
inline void check_residual(const char* name, const std::optional<torch::stable::Tensor>& residual,
                           torch::headeronly::IntHeaderOnlyArrayRef shape) {
  STD_TORCH_CHECK(!residual || (residual->scalar_type() == torch::headeronly::ScalarType::Float &&
                                residual->dim() == int64_t(shape.size()) &&
                                std::equal(shape.begin(), shape.end(), residual->sizes().begin())),
                  name, ": residual must be float32 and of the shape of the output");
}

}  // namespace leanmark
