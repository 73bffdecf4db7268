// The operator: checks, and how rows and channels are shared out over threads.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <optional>

#include "cpu/checks.h"
#include "cpu/depthwise/plan.h"
#include "cpu/tensors.h"
#include "cpu/threads.h"

namespace leanmark::depthwise {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// The Python entry explains mistakes; these keep a direct call through torch.ops from reading stray memory.
void check(const Tensor& input, const Tensor& weight, const std::optional<Tensor>& bias, int64_t stride,
           int64_t padding) {
  STD_TORCH_CHECK(input.scalar_type() == ScalarType::Float && input.dim() == 4,
                  "depthwise_conv2d: input must be float32 and [N, C, H, W]");
  STD_TORCH_CHECK(weight.scalar_type() == ScalarType::Float && weight.dim() == 2 && weight.size(0) == 9 &&
                      weight.size(1) == input.size(1),
                  "depthwise_conv2d: weight must be float32 and [9, C]");
  check_bias("depthwise_conv2d", bias, input.size(1));
  STD_TORCH_CHECK((stride == 1 || stride == 2) && padding >= 0 && padding <= kLargest,
                  "depthwise_conv2d: stride must be 1 or 2, padding 0 to 1048575");
  STD_TORCH_CHECK(input.size(2) + 2 * padding >= 3 && input.size(3) + 2 * padding >= 3,
                  "depthwise_conv2d: the padded input must be at least 3 x 3");
}

Tensor depthwise_conv2d(const Tensor& input, const Tensor& weight, const std::optional<Tensor>& bias,
                        int64_t stride, int64_t padding, int64_t activation) {
  check(input, weight, bias, stride, padding);
  const int64_t batch = input.size(0), channels = input.size(1), height = input.size(2), width = input.size(3);
  const int64_t out_height = (height + 2 * padding - 3) / stride + 1;
  const Tensor x = channels_last(input), w = row_major(weight);
  const std::optional<Tensor> b = row_major(bias);
  const Plan plan{w.const_data_ptr<float>(), values_or_null(b), channels, width,
                  (width + 2 * padding - 3) / stride + 1, stride, padding, range_of(activation, "depthwise_conv2d")};
  const Tensor y = allocate_channels_last({batch, channels, out_height, plan.out_width});
  if (batch == 0 || channels == 0) return y;

  const float* from = x.const_data_ptr<float>();
  float* to = y.mutable_data_ptr<float>();
  const int64_t at_once = rows_at_once(stride), bands = divide_up(out_height, at_once);
  const int64_t chunks = divide_up(channels, kChunk);
  const Kernel run = kernel();
  const auto item = [&](int64_t index) {
    const int64_t band = index % bands, chunk = index / bands % chunks, image = index / bands / chunks;
    const int64_t first = band * at_once, top = first * stride - padding;
    Rows rows{};
    rows.count = std::min(at_once, out_height - first);
    for (int64_t i = 0; i < 4; ++i) {
      const bool inside = top + i >= 0 && top + i < height;
      rows.input[i] = inside ? from + (image * height + top + i) * width * channels : nullptr;
    }
    for (int64_t i = 0; i < rows.count; ++i) {
      rows.output[i] = to + (image * out_height + first + i) * plan.out_width * channels;
    }
    run(plan, rows, chunk * kChunk, std::min(channels, (chunk + 1) * kChunk));
  };
  const double pixels = double(batch) * channels, outputs = pixels * out_height * plan.out_width;
  const Work work{pixels * height * width * sizeof(float), 9 * outputs};
  parallel_for(batch * chunks * bands, work, [&](int64_t begin, int64_t end, int64_t) {
    for (int64_t index = begin; index < end; ++index) item(index);
  });
  return y;
}

}  // namespace

Kernel kernel() {
#if defined(__x86_64__)
  if (capability() >= Capability::kAvx512) return kernel_avx512();
  if (capability() >= Capability::kAvx2) return kernel_avx2();
#endif
  return kernel_portable();
}

STABLE_TORCH_LIBRARY_IMPL(leanmark, CPU, m) { m.impl("depthwise_conv2d", TORCH_BOX(&depthwise_conv2d)); }

}  // namespace leanmark::depthwise
