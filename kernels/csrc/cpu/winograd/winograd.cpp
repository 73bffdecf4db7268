// The operator: checks, scratch memory, and how blocks of tiles are shared out over threads.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <vector>

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
    case Form::kF3: return sizes<F3>(7, 2);
    default: return sizes<Stride2>(3, 2);
  }
}

Form form_of(int64_t weights, int64_t stride) {
  if (stride == 1) return weights == 36 ? Form::kF4 : Form::kF2;
  return weights == 36 ? Form::kF3 : Form::kStride2;
}

struct Schedule {
  const Plan& plan;
  const Phases& phases;
  int64_t points, weights, block_tiles, blocks;

  int64_t scratch_floats() const { return points * (plan.in_point_stride + plan.out_point_stride); }

  Block block(int64_t index, float* scratch) const {
    const int64_t first = index * block_tiles;
    return {first, std::min(block_tiles, plan.tiles - first), scratch, scratch + points * plan.in_point_stride};
  }
  int64_t inputs(const Block& b) const { return b.tiles * divide_up(plan.in_channels, kChunk); }
  int64_t products() const { return weights * divide_up(plan.panels, phases.panels_at_once); }
  int64_t outputs(const Block& b) const { return b.tiles * divide_up(plan.out_channels, kChunk); }
};

// Many tiles: every thread takes whole blocks, and what it transforms stays in its own cache.
void run_blocks(const Schedule& s, int64_t workers, float* scratch) {
  Items blocks(s.blocks);
  torch::stable::parallel_for(0, workers, 1, [&](int64_t worker, int64_t) {
    blocks.take_singly([&](int64_t index) {
      const Block block = s.block(index, scratch + worker * s.scratch_floats());
      s.phases.transform_inputs(s.plan, block, 0, s.inputs(block));
      s.phases.multiply(s.plan, block, 0, s.products());
      s.phases.transform_outputs(s.plan, block, 0, s.outputs(block));
    });
  });
}

// Few tiles: all threads work on one block, so that each reads its share of the weights only.
void run_phases(const Schedule& s, int64_t workers, float* scratch) {
  const Phase phases[] = {s.phases.transform_inputs, s.phases.multiply, s.phases.transform_outputs};
  std::vector<Items> items;
  items.reserve(3 * s.blocks);
  for (int64_t index = 0; index < s.blocks; ++index) {
    const Block block = s.block(index, scratch);
    for (const int64_t count : {s.inputs(block), s.products(), s.outputs(block)}) items.emplace_back(count);
  }
  torch::stable::parallel_for(0, workers, 1, [&](int64_t, int64_t) {
    for (int64_t i = 0; i < 3 * s.blocks; ++i) {
      const Block block = s.block(i / 3, scratch);
      items[i].take_and_wait(workers, [&](int64_t begin, int64_t end) {
        phases[i % 3](s.plan, block, begin, end);
      });
    }
  });
}

void run(Plan& plan, Form form) {
  const auto [kernel, stride, side, points, weights, first] = sizes_of(form);
  plan.first = first;
  const int64_t threads = torch::stable::get_num_threads();
  const int64_t per_tile = points * (plan.in_stride + plan.out_stride);
  const int64_t fits = std::max(kFewestTiles, kBlockFloats / per_tile);
  const bool whole_blocks = threads == 1 || plan.tiles >= threads * kFewestTiles;
  const int64_t workers = whole_blocks ? threads : 1;
  // Blocks of even size, as many for every worker.
  const int64_t blocks = divide_up(std::max<int64_t>(1, (plan.tiles + fits / 2) / fits), workers) * workers;
  const int64_t block_tiles = divide_up(plan.tiles, blocks);

  // One cache line more, or the points of a tile would fall into few sets of the cache.
  plan.in_point_stride = block_tiles * plan.in_stride + kAlign;
  plan.out_point_stride = block_tiles * plan.out_stride + kAlign;
  const Schedule schedule{plan, phases(form), points, weights, block_tiles, divide_up(plan.tiles, block_tiles)};
  const int64_t floats = workers * schedule.scratch_floats(), together = 1;
  const Tensor scratch = allocate({&floats, 1}, &together);
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
  STD_TORCH_CHECK(weight.dim() == 4 && (weight.size(0) == 16 || weight.size(0) == 36) &&
                      weight.size(3) == kPanelWidth,
                  "winograd_conv2d: weight must be [16 or 36, panels, C, 16]");
  const Form form = form_of(weight.size(0), stride);
  const int64_t kernel = sizes_of(form).kernel, pixels = form == Form::kF3 ? kSquare : 1;
  STD_TORCH_CHECK(weight.size(2) == pixels * input.size(1) && input.size(1) > 0,
                  "winograd_conv2d: weight must be packed for the C of input");
  STD_TORCH_CHECK(out_channels > 0 && divide_up(out_channels, kPanelWidth) == weight.size(1),
                  "winograd_conv2d: out_channels must be that of the packed weight");
  STD_TORCH_CHECK(padding >= 0 && input.size(2) + 2 * padding >= kernel && input.size(3) + 2 * padding >= kernel,
                  "winograd_conv2d: padding must be >= 0 and the padded input at least as large as the kernel");
  if (!bias) return;
  STD_TORCH_CHECK(bias->scalar_type() == ScalarType::Float && bias->dim() == 1 && bias->size(0) == out_channels,
                  "winograd_conv2d: bias must be float32 and [out_channels]");
}

void check_residual(const Tensor& residual, const std::array<int64_t, 4>& shape) {
  STD_TORCH_CHECK(residual.scalar_type() == ScalarType::Float && residual.dim() == 4 &&
                      std::equal(shape.begin(), shape.end(), residual.sizes().begin()),
                  "winograd_conv2d: residual must be float32 and of the shape of the output");
}

// The sizes of the problem; the caller adds the tensors.
Plan plan_for(const Tensor& input, const Tensor& weight, int64_t out_channels, int64_t padding, Form form) {
  const Sizes sizes = sizes_of(form);
  Plan plan{};
  plan.height = input.size(2);
  plan.width = input.size(3);
  plan.in_channels = input.size(1);
  plan.depth = weight.size(2);
  plan.out_height = (plan.height + 2 * padding - sizes.kernel) / sizes.stride + 1;
  plan.out_width = (plan.width + 2 * padding - sizes.kernel) / sizes.stride + 1;
  plan.out_channels = out_channels;
  plan.padding = padding;
  plan.tiles_high = divide_up(plan.out_height, sizes.side);
  plan.tiles_wide = divide_up(plan.out_width, sizes.side);
  plan.tiles = input.size(0) * plan.tiles_high * plan.tiles_wide;
  plan.panels = weight.size(1);
  plan.in_stride = divide_up(plan.depth, kAlign) * kAlign;
  plan.out_stride = plan.panels * kPanelWidth;
  return plan;
}

// An image whose pixels are the squares of 2x2 of the input, as many as the tiles cover: all of these are inside.
Tensor take_squares(Plan& plan, int64_t batch) {
  const Squares squares{plan.input, plan.height, plan.width, plan.in_channels, plan.padding,
                        plan.tiles_high * F3::kStep + F3::kIn - F3::kStep,
                        plan.tiles_wide * F3::kStep + F3::kIn - F3::kStep, plan.in_stride};
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
  const Form form = form_of(weight.size(0), stride);
  Plan plan = plan_for(input, weight, out_channels, padding, form);
  const std::array<int64_t, 4> shape{input.size(0), out_channels, plan.out_height, plan.out_width};
  if (residual) check_residual(*residual, shape);

  const Tensor x = channels_last(input), w = row_major(weight);
  const std::optional<Tensor> b = row_major(bias);
  const std::optional<Tensor> r = residual ? std::optional(channels_last(*residual)) : std::nullopt;
  const Tensor y = allocate_channels_last(shape);
  if (plan.tiles == 0) return y;
  plan.input = x.const_data_ptr<float>();
  plan.weight = w.const_data_ptr<float>();
  plan.bias = values_or_null(b);
  plan.residual = values_or_null(r);
  plan.output = y.mutable_data_ptr<float>();
  plan.relu = relu;
  std::optional<Tensor> squares;  // lives as long as the plan
  if (form == Form::kF3) squares = take_squares(plan, input.size(0));
  run(plan, form);
  return y;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(leanmark, CPU, m) { m.impl("winograd_conv2d", TORCH_BOX(&winograd_conv2d)); }

}  // namespace leanmark::winograd
