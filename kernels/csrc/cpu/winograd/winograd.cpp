// The operator: checks, and the scratch memory of blocks of tiles.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <array>
#include <cstdint>
#include <optional>

#include "cpu/blocks.h"
#include "cpu/checks.h"
#include "cpu/panels.h"
#include "cpu/tensors.h"
#include "cpu/threads.h"
#include "cpu/winograd/plan.h"
#include "cpu/winograd/squares.h"
#include "cpu/winograd/transforms.h"

namespace leanmark::winograd {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// Floats of scratch that one block may take: with the panels in use, about what a core's own cache holds.
constexpr int64_t kBlockFloats = 96 * 1024;
constexpr int64_t kAlign = 16;

const Phases& phases(Form form) {
#if defined(__x86_64__)
  if (capability() >= Capability::kAvx512) return phases_avx512(form);
  if (capability() >= Capability::kAvx2) return phases_avx2(form);
#endif
  return phases_portable(form);
}

// The sizes that go with a form.
struct Sizes {
  int64_t kernel, stride, side, points, weights;
  const uint8_t* first;
};

template <class Tile>
constexpr Sizes sizes(int64_t kernel, int64_t stride) {
  return {kernel, stride, Tile::kOut, Tile::kIn * Tile::kIn, Tile::kWeights * Tile::kWeights,
          kOrder<Tile>.first.data()};
}

Sizes sizes_of(Form form) {
  switch (form) {
    case Form::kF2: return sizes<F2>(3, 1);
    case Form::kF4: return sizes<F4>(3, 1);
    case Form::kF4AsStored: return sizes<F4>(3, 1);
    case Form::kF3: return sizes<F3>(7, 2);
    default: return sizes<Stride2>(3, 2);
  }
}

Form form_of(const Tensor& weight, int64_t stride) {
  if (weight.dim() == 5) return Form::kF4AsStored;
  const int64_t weights = weight.size(0);
  if (stride == 1) return weights == 36 ? Form::kF4 : Form::kF2;
  return weights == 36 ? Form::kF3 : Form::kStride2;
}

struct Schedule {
  static constexpr int kPhases = 3;

  const Plan& plan;
  const Phases& phases;
  Blocks blocks;
  int64_t weights;
  int64_t input_floats, output_floats;  // of one block
  float* scratch;

  // On the same block, workers share its inputs and, unless products become outputs at once, its outputs.
  Block block(int64_t index, int64_t worker) const {
    const int64_t own_floats = blocks.shared ? 0 : input_floats + output_floats;
    const int64_t own_outputs = blocks.shared && !phases.transform_outputs ? output_floats : 0;
    float* inputs = scratch + worker * own_floats;
    return {blocks.first(index), blocks.tiles_of(index), inputs, inputs + input_floats + worker * own_outputs};
  }
  int64_t items(int phase, const Block& b) const {
    const int64_t together = plan.inputs.together;
    switch (phase) {
      case 0: return divide_up(b.tiles, together) * together * divide_up(plan.in_channels, kChunk);
      case 1: return weights * divide_up(plan.panels, phases.panels_at_once);
      default: return phases.transform_outputs ? b.tiles * divide_up(plan.out_channels, kChunk) : 0;
    }
  }
  void run(int phase, const Block& b, int64_t begin, int64_t end) const {
    const Phase all[] = {phases.transform_inputs, phases.multiply, phases.transform_outputs};
    if (all[phase]) all[phase](plan, b, begin, end);
  }
};

// One row of channels per tile, the points apart by one cache line more, or they would fall into few sets of a cache.
Layout by_point(int64_t tiles, int64_t channels) {
  const int64_t row = divide_up(channels, kAlign) * kAlign;
  return {1, row, row, kPanelWidth, tiles * row + kAlign};
}

// In the order of the products with weights as they are stored, so that all strides but one are constants there.
Layout by_group(int64_t together, int64_t points, int64_t channels) {
  const int64_t panel = points * together * kPanelWidth;
  return {together, divide_up(channels, kPanelWidth) * panel, kPanelWidth, panel, together * kPanelWidth};
}

void run(Plan& plan, Form form) {
  const auto [kernel, stride, side, points, weights, first] = sizes_of(form);
  const Phases& steps = phases(form);
  plan.first = first;
  const bool ahead = form != Form::kF4AsStored;
  const int64_t out_channels = ahead ? plan.out_channels : kPanelWidth;  // whose products are there at a time
  const int64_t per_tile = points * (divide_up(plan.depth, kAlign) + divide_up(out_channels, kAlign)) * kAlign;
  const int64_t together = steps.tiles_together;
  const Blocks blocks = blocks_of(plan.tiles, kBlockFloats / per_tile, together);

  const auto lay_out = [&](int64_t channels) {
    return ahead ? by_point(blocks.block_tiles, channels) : by_group(together, points, channels);
  };
  const auto floats = [&](const Layout& layout) {
    return ahead ? points * layout.point : blocks.block_tiles / together * layout.group;
  };
  plan.inputs = lay_out(plan.depth);
  plan.outputs = lay_out(out_channels);
  const int64_t input_floats = floats(plan.inputs), output_floats = floats(plan.outputs);
  const int64_t inputs = blocks.shared ? 1 : blocks.workers, outputs = blocks.shared && ahead ? 1 : blocks.workers;
  const Tensor scratch = allocate_row_major({inputs * input_floats + outputs * output_floats});
  run_all(Schedule{plan, steps, blocks, ahead ? weights : 1, input_floats, output_floats,
                   scratch.mutable_data_ptr<float>()});
}

// The Python entry explains mistakes; these keep a direct call through torch.ops from reading stray memory.
void check(const Tensor& input, const Tensor& weight, const std::optional<Tensor>& bias, int64_t out_channels,
           int64_t padding, int64_t stride) {
  STD_TORCH_CHECK(input.scalar_type() == ScalarType::Float && weight.scalar_type() == ScalarType::Float,
                  "winograd_conv2d: input and weight must be float32");
  STD_TORCH_CHECK(input.dim() == 4, "winograd_conv2d: input must be [N, C, H, W]");
  STD_TORCH_CHECK(stride == 1 || stride == 2, "winograd_conv2d: stride must be 1 or 2");
  const bool ahead = weight.dim() == 4 && (weight.size(0) == 16 || weight.size(0) == 36);
  const bool as_stored = weight.dim() == 5 && weight.size(2) == 3 && weight.size(3) == 3 && stride == 1;
  STD_TORCH_CHECK((ahead || as_stored) && weight.size(weight.dim() - 1) == kPanelWidth,
                  "winograd_conv2d: weight must be [16 or 36, panels, C, 16], or [panels, C, 3, 3, 16] at stride 1");
  const Form form = form_of(weight, stride);
  const int64_t kernel = sizes_of(form).kernel, pixels = form == Form::kF3 ? kSquare : 1;
  STD_TORCH_CHECK(weight.size(ahead ? 2 : 1) == pixels * input.size(1) && input.size(1) > 0,
                  "winograd_conv2d: weight must be packed for the C of input");
  STD_TORCH_CHECK(out_channels > 0 && divide_up(out_channels, kPanelWidth) == weight.size(ahead ? 1 : 0),
                  "winograd_conv2d: out_channels must be that of the packed weight");
  STD_TORCH_CHECK(padding >= 0 && padding <= kLargest, "winograd_conv2d: padding must be 0 to 1048575");
  STD_TORCH_CHECK(input.size(2) + 2 * padding >= kernel && input.size(3) + 2 * padding >= kernel,
                  "winograd_conv2d: the padded input must be at least as large as the kernel");
  check_bias("winograd_conv2d", bias, out_channels);
}

// The sizes of the problem; the caller adds the tensors.
Plan plan_for(const Tensor& input, const Tensor& weight, int64_t out_channels, int64_t padding, Form form) {
  const Sizes sizes = sizes_of(form);
  Plan plan{};
  plan.height = input.size(2);
  plan.width = input.size(3);
  plan.in_channels = input.size(1);
  const int64_t panels_at = form == Form::kF4AsStored ? 0 : 1;
  plan.panels = weight.size(panels_at);
  plan.depth = weight.size(panels_at + 1);
  plan.out_height = (plan.height + 2 * padding - sizes.kernel) / sizes.stride + 1;
  plan.out_width = (plan.width + 2 * padding - sizes.kernel) / sizes.stride + 1;
  plan.out_channels = out_channels;
  plan.padding = padding;
  plan.tiles_high = divide_up(plan.out_height, sizes.side);
  plan.tiles_wide = divide_up(plan.out_width, sizes.side);
  plan.tiles = input.size(0) * plan.tiles_high * plan.tiles_wide;
  return plan;
}

// An image whose pixels are the squares of 2x2 of the input, as many as the tiles cover: all of these are inside.
Tensor take_squares(Plan& plan, const Tensor& input) {
  const int64_t batch = input.size(0);
  const Squares squares{input.const_data_ptr<float>(), input.stride(0), input.stride(2), input.stride(3),
                        input.stride(1), plan.height, plan.width, plan.in_channels, plan.padding,
                        plan.tiles_high * F3::kStep + F3::kIn - F3::kStep,
                        plan.tiles_wide * F3::kStep + F3::kIn - F3::kStep,
                        divide_up(plan.depth, kAlign) * kAlign};
  const Tensor image = allocate_channels_last({batch, squares.channels, squares.high, squares.wide});
  float* to = image.mutable_data_ptr<float>();
  const int64_t rows = batch * squares.high;
  const double bytes = double(rows) * squares.wide * squares.channels * sizeof(float);
  parallel_for(rows, {bytes, 0}, [&](int64_t begin, int64_t end, int64_t) { squares.write(to, begin, end); });
  plan.input = to;
  plan.height = squares.high;
  plan.width = squares.wide;
  plan.in_channels = squares.channels;
  plan.padding = 0;
  return image;
}

Tensor winograd_conv2d(const Tensor& input, const Tensor& weight, const std::optional<Tensor>& bias,
                       const std::optional<Tensor>& residual, int64_t out_channels, int64_t padding,
                       int64_t stride, bool relu) {
  check(input, weight, bias, out_channels, padding, stride);
  const Form form = form_of(weight, stride);
  Plan plan = plan_for(input, weight, out_channels, padding, form);
  const std::array<int64_t, 4> shape{input.size(0), out_channels, plan.out_height, plan.out_width};
  check_residual("winograd_conv2d", residual, shape);

  const Tensor x = form == Form::kF3 ? input : channels_last(input), w = row_major(weight);
  const std::optional<Tensor> b = row_major(bias), r = channels_last(residual);
  const Tensor y = allocate_channels_last(shape);
  if (plan.tiles == 0) return y;
  plan.input = x.const_data_ptr<float>();
  plan.weight = w.const_data_ptr<float>();
  plan.bias = values_or_null(b);
  plan.residual = values_or_null(r);
  plan.output = y.mutable_data_ptr<float>();
  plan.relu = relu;
  std::optional<Tensor> squares;  // lives as long as the plan
  if (form == Form::kF3) squares = take_squares(plan, input);
  run(plan, form);
  return y;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(leanmark, CPU, m) { m.impl("winograd_conv2d", TORCH_BOX(&winograd_conv2d)); }

}  // namespace leanmark::winograd
