// Small steps that several operators take with torch's tensors.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>

namespace leanmark {

// Of windows, steps and padding, as the Python entry has it: the sizes that are computed from them stay in 64 bits.
constexpr int64_t kLargest = (1 << 20) - 1;

inline int64_t divide_up(int64_t value, int64_t by) { return (value + by - 1) / by; }

// Row-major; asking first is cheaper than a call through the dispatcher.
inline torch::stable::Tensor row_major(const torch::stable::Tensor& tensor) {
  return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor);
}

// Memory of the CPU, not initialised, so that the caller has to write all of it. Without the dispatcher: its
// empty takes four times as long, and longer than a small layer.
inline torch::stable::Tensor allocate(torch::headeronly::IntHeaderOnlyArrayRef sizes, const int64_t* strides,
                                      int32_t dtype = aoti_torch_dtype_float32()) {
  AtenTensorHandle tensor;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(sizes.size(), sizes.data(), strides, dtype,
                                                  aoti_torch_device_type_cpu(), 0, &tensor));
  return torch::stable::Tensor(tensor);
}

inline torch::stable::Tensor allocate_row_major(torch::headeronly::IntHeaderOnlyArrayRef sizes,
                                                int32_t dtype = aoti_torch_dtype_float32()) {
  std::array<int64_t, 64> strides;
  STD_TORCH_CHECK(sizes.size() <= strides.size(), "a tensor must have at most 64 dimensions");
  int64_t stride = 1;
  for (size_t i = sizes.size(); i-- > 0; stride *= std::max<int64_t>(1, sizes[i])) strides[i] = stride;
  return allocate(sizes, strides.data(), dtype);
}

// float32 and row-major: the leading sizes of `like`, and `last`.
inline torch::stable::Tensor allocate_rows(const torch::stable::Tensor& like, int64_t last) {
  std::array<int64_t, 64> sizes;
  const auto leading = like.sizes();
  STD_TORCH_CHECK(leading.size() >= 1 && leading.size() <= sizes.size(), "input must have 1 to 64 dimensions");
  std::copy(leading.begin(), leading.end(), sizes.begin());
  sizes[leading.size() - 1] = last;
  return allocate_row_major({sizes.data(), leading.size()});
}

// float32, NHWC in memory.
inline torch::stable::Tensor allocate_channels_last(const std::array<int64_t, 4>& sizes) {
  const auto most = [&](int i) { return std::max<int64_t>(1, sizes[i]); };
  const std::array<int64_t, 4> strides{most(1) * most(2) * most(3), 1, most(1) * most(3), most(1)};
  return allocate({sizes.data(), sizes.size()}, strides.data());
}

inline torch::stable::Tensor allocate_bytes(int64_t count) {
  return allocate_row_major({count}, aoti_torch_dtype_uint8());
}

// The values of an optional float32 tensor, or null. The caller keeps the tensor alive.
inline const float* values_or_null(const std::optional<torch::stable::Tensor>& tensor) {
  return tensor ? tensor->const_data_ptr<float>() : nullptr;
}

inline std::optional<torch::stable::Tensor> row_major(const std::optional<torch::stable::Tensor>& tensor) {
  return tensor ? std::optional(row_major(*tensor)) : std::nullopt;
}

// How many rows of its last dimension it has.
inline int64_t rows_of(const torch::stable::Tensor& tensor) {
  int64_t rows = 1;
  for (const int64_t size : tensor.sizes().slice(0, tensor.dim() - 1)) rows *= size;
  return rows;
}

// NHWC in memory, as torch.channels_last.
inline bool is_channels_last(const torch::stable::Tensor& tensor) {
  const int64_t channels = tensor.size(1), height = tensor.size(2), width = tensor.size(3);
  return tensor.stride(1) == 1 && tensor.stride(3) == channels && tensor.stride(2) == width * channels &&
         tensor.stride(0) == height * width * channels;
}

inline torch::stable::Tensor channels_last(const torch::stable::Tensor& tensor) {
  if (is_channels_last(tensor)) return tensor;
  return torch::stable::contiguous(tensor, torch::headeronly::MemoryFormat::ChannelsLast);
}

inline std::optional<torch::stable::Tensor> channels_last(const std::optional<torch::stable::Tensor>& tensor) {
  return tensor ? std::optional(channels_last(*tensor)) : std::nullopt;
}

}  // namespace leanmark
