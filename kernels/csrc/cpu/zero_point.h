#pragma once

#include <torch/csrc/stable/tensor.h>

#include <cstdint>

namespace leanmark {

// Whether the dtype of `input`, int8 or uint8, has that value: what exact sums have room for, and padding is filled
// with.
inline bool is_value(const torch::stable::Tensor& input, int64_t zero_point) {
  const int64_t least = input.scalar_type() == torch::headeronly::ScalarType::Byte ? 0 : -128;
  return least <= zero_point && zero_point <= least + 255;
}

}  // namespace leanmark
