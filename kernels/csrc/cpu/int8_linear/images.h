// Images as the integers of a convolution.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <optional>

namespace leanmark::int8_linear {

// NHWC.
struct Images {
  torch::stable::Tensor pixels, scales;  // what the others point into
  const void* values;
  const float* scale;
  bool is_unsigned, one_scale;
};

// What is refused, in the words of `operator_name`: all but int8 or uint8 [N, C, H, W] with one scale or N of them,
// and float32 without any.
void check_images(const char* operator_name, const torch::stable::Tensor& input,
                  const std::optional<torch::stable::Tensor>& scale, int64_t zero_point);

// Floats are rounded to 8 bits, each image by its own largest magnitude.
Images images_of(const torch::stable::Tensor& input, const std::optional<torch::stable::Tensor>& scale);

}  // namespace leanmark::int8_linear
