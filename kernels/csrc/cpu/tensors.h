// Small steps that several operators take with torch's tensors.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <optional>

namespace leanmark {

inline int64_t divide_up(int64_t value, int64_t by) { return (value + by - 1) / by; }

// Row-major; asking first is cheaper than a call through the dispatcher.
inline torch::stable::Tensor row_major(const torch::stable::Tensor& tensor) {
  return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor);
}

// The values of an optional float32 tensor, or null. The caller keeps the tensor alive.
inline const float* values_or_null(const std::optional<torch::stable::Tensor>& tensor) {
  return tensor ? tensor->const_data_ptr<float>() : nullptr;
}

inline std::optional<torch::stable::Tensor> row_major(const std::optional<torch::stable::Tensor>& tensor) {
  return tensor ? std::optional(row_major(*tensor)) : std::nullopt;
}

// NHWC in memory, as torch.channels_last.
inline torch::stable::Tensor channels_last(const torch::stable::Tensor& tensor) {
  const int64_t channels = tensor.size(1), height = tensor.size(2), width = tensor.size(3);
  const bool already = tensor.stride(1) == 1 && tensor.stride(3) == channels &&
                       tensor.stride(2) == width * channels && tensor.stride(0) == height * width * channels;
  return already ? tensor : torch::stable::contiguous(tensor, torch::headeronly::MemoryFormat::ChannelsLast);
}

}  // namespace leanmark
