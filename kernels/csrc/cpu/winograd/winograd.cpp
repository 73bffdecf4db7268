// The operator: checks, scratch memory, and how blocks of tiles are shared out over threads.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "cpu/checks.h"
#include "cpu/items.h"
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
// Weights are read once per block, so a block has at least this many tiles, even where they overflow a cache.
constexpr int64_t kFewestTiles = 32;
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
  const Plan& plan;
  const Phases& phases;
  int64_t weights, block_tiles, blocks;
  int64_t input_floats, output_floats;  // of one block

  Block block(int64_t index, float* inputs, float* outputs) const {
    const int64_t first = index * block_tiles;
    return {first, std::min(block_tiles, plan.tiles - first), inputs, outputs};
  }
  int64_t inputs(const Block& b) const {
    const int64_t together = plan.inputs.together;
    return divide_up(b.tiles, together) * together * divide_up(plan.in_channels, kChunk);
  }
  int64_t products() const { return weights * divide_up(plan.panels, phases.panels_at_once); }
  int64_t outputs(const Block& b) const {
    return phases.transform_outputs ? b.tiles * divide_up(plan.out_channels, kChunk) : 0;
  }
};

// Many tiles: every thread takes whole blocks, and what it transforms stays in its own cache.
void run_blocks(const Schedule& s, int64_t workers, float* scratch) {
  Items blocks(s.blocks);
  torch::stable::parallel_for(0, workers, 1, [&](int64_t worker, int64_t) {
    float* inputs = scratch + worker * (s.input_floats + s.output_floats);
    blocks.take_singly([&](int64_t index) {
      const Block block = s.block(index, inputs, inputs + s.input_floats);
      s.phases.transform_inputs(s.plan, block, 0, s.inputs(block));
      s.phases.multiply(s.plan, block, 0, s.products());
      if (s.phases.transform_outputs) s.phases.transform_outputs(s.plan, block, 0, s.outputs(block));
    });
  });
}

// Few tiles: all threads work on one block, so that each reads its share of the weights only. Where the products of
// a panel become outputs at once, every thread has memory of its own for them.
void run_phases(const Schedule& s, int64_t workers, float* scratch) {
  const Phase phases[] = {s.phases.transform_inputs, s.phases.multiply, s.phases.transform_outputs};
  const auto block_for = [&](int64_t worker, int64_t index) {
    const int64_t own = s.phases.transform_outputs ? 0 : worker * s.output_floats;
    return s.block(index, scratch, scratch + s.input_floats + own);
  };
  std::vector<Items> items;
  items.reserve(3 * s.blocks);
  for (int64_t index = 0; index < s.blocks; ++index) {
    const Block block = block_for(0, index);
    for (const int64_t count : {s.inputs(block), s.products(), s.outputs(block)}) items.emplace_back(count);
  }
  torch::stable::parallel_for(0, workers, 1, [&](int64_t worker, int64_t) {
    for (int64_t i = 0; i < 3 * s.blocks; ++i) {
      const Block block = block_for(worker, i / 3);
      items[i].take_and_wait(workers, [&](int64_t begin, int64_t end) {
        phases[i % 3](s.plan, block, begin, end);
      });
    }
  });
}

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
  const int64_t threads = torch::stable::get_num_threads();
  const int64_t out_channels = ahead ? plan.out_channels : kPanelWidth;  // whose products are there at a time
  const int64_t per_tile = points * (divide_up(plan.depth, kAlign) + divide_up(out_channels, kAlign)) * kAlign;
  const int64_t fits = std::max(kFewestTiles, kBlockFloats / per_tile);
  const bool whole_blocks = threads == 1 || plan.tiles >= threads * kFewestTiles;
  const int64_t workers = whole_blocks ? threads : 1;
  // Blocks of even size, as many for every worker.
  const int64_t blocks = divide_up(std::max<int64_t>(1, (plan.tiles + fits / 2) / fits), workers) * workers;
  const int64_t together = steps.tiles_together;
  const int64_t block_tiles = divide_up(divide_up(plan.tiles, blocks), together) * together;

  const auto lay_out = [&](int64_t channels) {
    return ahead ? by_point(block_tiles, channels) : by_group(together, points, channels);
  };
  const auto floats = [&](const Layout& layout) {
    return ahead ? points * layout.point : block_tiles / together * layout.group;
  };
  plan.inputs = lay_out(plan.depth);
  plan.outputs = lay_out(out_channels);
  const Schedule schedule{plan,
                          steps,
                          ahead ? weights : 1,
                          block_tiles,
                          divide_up(plan.tiles, block_tiles),
                          floats(plan.inputs),
                          floats(plan.outputs)};
  const int64_t inputs = whole_blocks ? threads : 1, outputs = whole_blocks || !ahead ? threads : 1;
  const Tensor scratch = allocate_row_major({inputs * schedule.input_floats + outputs * schedule.output_floats});
  const auto run_all = whole_blocks ? run_blocks : run_phases;
  run_all(schedule, threads, scratch.mutable_data_ptr<float>());
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
