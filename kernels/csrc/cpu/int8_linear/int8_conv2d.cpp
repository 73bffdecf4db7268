// Convolutions on 8-bit integers: the product of patches and weights, of any geometry.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "cpu/int8_linear/images.h"
#include "cpu/int8_linear/run.h"
#include "cpu/tensors.h"
#include "cpu/window.h"

namespace leanmark::int8_linear {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

constexpr const char* kName = "int8_conv2d";

// The Python entry explains mistakes; these keep a direct call through torch.ops from reading stray memory.
void check(const Tensor& input, const Tensor& weight, const Tensor& scale, const Window& w) {
  STD_TORCH_CHECK(weight.scalar_type() == ScalarType::Char && weight.dim() == 3 && weight.size(0) > 0 &&
                      scale.dim() == 1 && input.size(1) % weight.size(0) == 0 && scale.size(0) % weight.size(0) == 0,
                  "int8_conv2d: weight must be packed [groups, ...], of groups that divide C and the outputs");
  STD_TORCH_CHECK(w.fits(input.size(2), 0) && w.fits(input.size(3), 1),
                  "int8_conv2d: the padded input must be at least as large as the kernel");
}

Patches patches_for(const Tensor& input, int64_t groups, const Window& w) {
  const int64_t height = input.size(2), width = input.size(3), channels = input.size(1);
  return {height, width, channels, channels / groups, w.output(height, 0), w.output(width, 1), w.size[0], w.size[1],
          w.stride[0], w.stride[1], w.padding[0], w.padding[1], w.dilation[0], w.dilation[1]};
}

// Whether the pixels themselves are the rows.
bool is_plain(const Patches& p) {
  return p.kernel_height * p.kernel_width == 1 && p.stride_y * p.stride_x == 1 && p.padding_y + p.padding_x == 0 &&
         p.channels == p.pixel;
}

Tensor int8_conv2d(const Tensor& input, const Tensor& weight, const Tensor& scale,
                   const std::optional<Tensor>& input_scale, int64_t zero_point, const std::optional<Tensor>& bias,
                   const std::vector<int64_t>& numbers, bool relu) {
  const Window window = window_of(kName, numbers, true);
  check_images(kName, input, input_scale, zero_point);
  check(input, weight, scale, window);
  const int64_t groups = weight.size(0), columns = scale.size(0), group_columns = columns / groups;
  const Patches patches = patches_for(input, groups, window);
  Plan plan{};
  plan.depth = patches.kernel_height * patches.kernel_width * patches.channels;
  STD_TORCH_CHECK(weight.size(1) == panels_for(group_columns) && weight.size(2) == panel_bytes_for(plan.depth),
                  "int8_conv2d: weight must be packed for the outputs and channels of a group and for kernel_size");
  check_layer(kName, scale, bias, plan.depth, columns);

  const Tensor w = row_major(weight), s = row_major(scale);
  const std::optional<Tensor> b = row_major(bias);
  const Tensor y = allocate_channels_last({input.size(0), columns, patches.out_height, patches.out_width});
  plan.rows = input.size(0) * patches.out_height * patches.out_width;
  if (plan.rows == 0 || columns == 0) return y;
  const Images images = images_of(input, input_scale);
  plan.patches = is_plain(patches) || plan.depth == 0 ? nullptr : &patches;
  plan.is_unsigned = images.is_unsigned;
  plan.zero_point = zero_point;
  plan.input_scale = images.scale;
  plan.rows_per_scale = images.one_scale ? plan.rows : patches.out_height * patches.out_width;
  plan.output_stride = columns;
  plan.columns = group_columns;
  plan.relu = relu;
  for (int64_t group = 0; group < groups; ++group) {
    Plan of_group = plan;
    of_group.input = static_cast<const int8_t*>(images.values) + group * patches.channels;
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
