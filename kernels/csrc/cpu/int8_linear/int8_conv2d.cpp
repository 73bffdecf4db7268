// Convolutions on 8-bit integers: the product of patches and weights, of any geometry.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "cpu/int8_linear/run.h"
#include "cpu/tensors.h"
#include "cpu/zero_point.h"

namespace leanmark::int8_linear {
namespace {

using torch::headeronly::MemoryFormat;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Pair = std::vector<int64_t>;

constexpr const char* kName = "int8_conv2d";

// The Python entry explains mistakes; these keep a direct call through torch.ops from reading stray memory.
void check(const Tensor& input, const Tensor& weight, const Tensor& scale, const Tensor& input_scale,
           int64_t zero_point) {
  STD_TORCH_CHECK((input.scalar_type() == ScalarType::Char || input.scalar_type() == ScalarType::Byte) &&
                      input.dim() == 4,
                  "int8_conv2d: input must be int8 or uint8 and [N, C, H, W]");
  STD_TORCH_CHECK(is_value(input, zero_point), "int8_conv2d: zero_point must be a value of input's dtype");
  STD_TORCH_CHECK(weight.scalar_type() == ScalarType::Char && weight.dim() == 3 && weight.size(0) > 0 &&
                      scale.dim() == 1 && input.size(1) % weight.size(0) == 0 && scale.size(0) % weight.size(0) == 0,
                  "int8_conv2d: weight must be packed [groups, ...], of groups that divide C and the outputs");
  STD_TORCH_CHECK(is_vector(input_scale, 1) || is_vector(input_scale, input.size(0)),
                  "int8_conv2d: input_scale must be float32 and [1] or [N]");
}

int64_t output_size(int64_t size, int64_t kernel, int64_t stride, int64_t padding, int64_t dilation) {
  STD_TORCH_CHECK(std::min({kernel, stride, dilation}) >= 1 && padding >= 0 &&
                      std::max({kernel, stride, dilation, padding}) <= kLargest,
                  "int8_conv2d: kernel_size, stride and dilation must be 1 to 1048575, padding 0 to 1048575");
  const int64_t left = size + 2 * padding - dilation * (kernel - 1) - 1;
  STD_TORCH_CHECK(left >= 0, "int8_conv2d: the padded input must be at least as large as the kernel");
  return left / stride + 1;
}

Patches patches_for(const Tensor& input, int64_t groups, const Pair& kernel, const Pair& stride, const Pair& padding,
                    const Pair& dilation) {
  STD_TORCH_CHECK(kernel.size() == 2 && stride.size() == 2 && padding.size() == 2 && dilation.size() == 2,
                  "int8_conv2d: kernel_size, stride, padding and dilation must be pairs");
  const int64_t height = input.size(2), width = input.size(3);
  return {height, width, input.size(1), input.size(1) / groups,
          output_size(height, kernel[0], stride[0], padding[0], dilation[0]),
          output_size(width, kernel[1], stride[1], padding[1], dilation[1]),
          kernel[0], kernel[1], stride[0], stride[1], padding[0], padding[1], dilation[0], dilation[1]};
}

// Whether the pixels themselves are the rows.
bool is_plain(const Patches& p) {
  return p.kernel_height * p.kernel_width == 1 && p.stride_y * p.stride_x == 1 && p.padding_y + p.padding_x == 0 &&
         p.channels == p.pixel;
}

Tensor int8_conv2d(const Tensor& input, const Tensor& weight, const Tensor& scale, const Tensor& input_scale,
                   int64_t zero_point, const std::optional<Tensor>& bias, Pair kernel_size, Pair stride, Pair padding,
                   Pair dilation, bool relu) {
  check(input, weight, scale, input_scale, zero_point);
  const int64_t groups = weight.size(0), columns = scale.size(0), group_columns = columns / groups;
  const Patches patches = patches_for(input, groups, kernel_size, stride, padding, dilation);
  Plan plan{};
  plan.depth = patches.kernel_height * patches.kernel_width * patches.channels;
  STD_TORCH_CHECK(weight.size(1) == panels_for(group_columns) && weight.size(2) == panel_bytes_for(plan.depth),
                  "int8_conv2d: weight must be packed for the outputs and channels of a group and for kernel_size");
  check_layer(kName, scale, bias, plan.depth, columns);

  const Tensor x = channels_last(input), w = row_major(weight), s = row_major(scale), xs = row_major(input_scale);
  const std::optional<Tensor> b = row_major(bias);
  const Tensor y = torch::stable::empty({input.size(0), columns, patches.out_height, patches.out_width},
                                        ScalarType::Float, std::nullopt, std::nullopt, std::nullopt,
                                        MemoryFormat::ChannelsLast);
  plan.rows = input.size(0) * patches.out_height * patches.out_width;
  if (plan.rows == 0 || columns == 0) return y;
  plan.patches = is_plain(patches) || plan.depth == 0 ? nullptr : &patches;
  plan.is_unsigned = x.scalar_type() == ScalarType::Byte;
  plan.zero_point = zero_point;
  plan.input_scale = xs.const_data_ptr<float>();
  plan.rows_per_scale = xs.size(0) == 1 ? plan.rows : patches.out_height * patches.out_width;
  plan.output_stride = columns;
  plan.columns = group_columns;
  plan.relu = relu;
  for (int64_t group = 0; group < groups; ++group) {
    Plan of_group = plan;
    of_group.input = static_cast<const int8_t*>(x.const_data_ptr()) + group * patches.channels;
    of_group.weight = w.const_data_ptr<int8_t>() + group * w.size(1) * w.size(2);
    of_group.scale = s.const_data_ptr<float>() + group * group_columns;
    of_group.bias = b ? b->const_data_ptr<float>() + group * group_columns : nullptr;
    of_group.output = y.mutable_data_ptr<float>() + group * group_columns;
    run(of_group);
  }
  return y;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(leanmark, CPU, m) { m.impl("int8_conv2d", TORCH_BOX(&int8_conv2d)); }

}  // namespace leanmark::int8_linear
