// The operators: checks, and how outputs are shared out over threads.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <vector>

#include "cpu/pooling/plan.h"
#include "cpu/tensors.h"
#include "cpu/threads.h"
#include "cpu/window.h"

namespace leanmark::pooling {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

constexpr int64_t kMostTaps = 64;
constexpr int64_t kChunk = 64;  // channels of an item of a mean

const Kernels& kernels() {
#if defined(__x86_64__)
  if (capability() >= Capability::kAvx512) return kernels_avx512();
  if (capability() >= Capability::kAvx2) return kernels_avx2();
#endif
  return kernels_portable();
}

// The Python entry explains mistakes; these keep a direct call through torch.ops from reading stray memory.
void check(const Tensor& input, const Window& w) {
  STD_TORCH_CHECK(input.scalar_type() == ScalarType::Float && input.dim() == 4,
                  "max_pool2d: input must be float32 and [N, C, H, W]");
  STD_TORCH_CHECK(w.taps() <= kMostTaps, "max_pool2d: kernel_size must have at most 64 taps");
  for (int axis = 0; axis < 2; ++axis) {
    const int64_t length = input.size(2 + axis);
    STD_TORCH_CHECK(length >= 1 && w.fits(length, axis) && 2 * w.padding[axis] <= w.size[axis],
                    "max_pool2d: padding must be at most half of kernel_size, the padded input at least as large");
  }
}

Tensor max_pool2d(const Tensor& input, const std::vector<int64_t>& window) {
  const Window w = window_of("max_pool2d", window, false);
  check(input, w);
  const int64_t batch = input.size(0), channels = input.size(1), height = input.size(2), width = input.size(3);
  const int64_t out_height = w.output(height, 0), out_width = w.output(width, 1);
  const Tensor x = channels_last(input), y = allocate_channels_last({batch, channels, out_height, out_width});
  if (batch == 0 || channels == 0) return y;

  const float* from = x.const_data_ptr<float>();
  float* to = y.mutable_data_ptr<float>();
  const Largest largest = kernels().largest;
  const auto pool_row = [&](int64_t row) {
    const int64_t image = row / out_height, top = row % out_height * w.stride[0] - w.padding[0];
    const int64_t first = std::max<int64_t>(0, top), last = std::min(height, top + w.size[0]);
    for (int64_t column = 0; column < out_width; ++column) {
      const int64_t left = column * w.stride[1] - w.padding[1], right = std::min(width, left + w.size[1]);
      const float* pixels[kMostTaps];
      int64_t count = 0;
      for (int64_t in_y = first; in_y < last; ++in_y) {
        const float* line = from + (image * height + in_y) * width * channels;
        for (int64_t in_x = std::max<int64_t>(0, left); in_x < right; ++in_x) {
          pixels[count++] = line + in_x * channels;
        }
      }
      largest(pixels, count, channels, to + (row * out_width + column) * channels);
    }
  };
  const Work work{double(x.numel()) * sizeof(float), 0};
  parallel_for(batch * out_height, work, [&](int64_t begin, int64_t end, int64_t) {
    for (int64_t row = begin; row < end; ++row) pool_row(row);
  });
  return y;
}

Tensor mean_pool2d(const Tensor& input) {
  STD_TORCH_CHECK(input.scalar_type() == ScalarType::Float && input.dim() == 4 && input.size(2) > 0 &&
                      input.size(3) > 0,
                  "mean_pool2d: input must be float32 and [N, C, H, W], H and W at least 1");
  const int64_t batch = input.size(0), channels = input.size(1), pixels = input.size(2) * input.size(3);
  const Tensor x = channels_last(input), y = allocate_channels_last({batch, channels, 1, 1});
  if (batch == 0 || channels == 0) return y;

  const float* from = x.const_data_ptr<float>();
  float* to = y.mutable_data_ptr<float>();
  const int64_t chunks = divide_up(channels, kChunk);
  const Mean mean = kernels().mean;
  const Work work{double(x.numel()) * sizeof(float), 0};
  parallel_for(batch * chunks, work, [&](int64_t begin, int64_t end, int64_t) {
    for (int64_t index = begin; index < end; ++index) {
      const int64_t image = index / chunks, first = index % chunks * kChunk;
      const int64_t count = std::min(kChunk, channels - first);
      mean(from + image * pixels * channels + first, pixels, channels, count, to + image * channels + first);
    }
  });
  return y;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(leanmark, CPU, m) {
  m.impl("max_pool2d", TORCH_BOX(&max_pool2d));
  m.impl("mean_pool2d", TORCH_BOX(&mean_pool2d));
}

}  // namespace leanmark::pooling
