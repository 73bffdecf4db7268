// The operator: checks, scratch memory, and how blocks of tiles are shared out over threads.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

#include "cpu/items.h"
#include "cpu/panels.h"
#include "cpu/tensors.h"
#include "cpu/winograd/plan.h"

namespace leanmark::winograd {
namespace {

using torch::headeronly::MemoryFormat;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// Floats of scratch that one block may take: with the panels in use, about what a core's own cache holds.
constexpr int64_t kBlockFloats = 96 * 1024;
// Weights are read once per block, so a block has at least this many tiles, even where they overflow a cache.
constexpr int64_t kFewestTiles = 32;
constexpr int64_t kAlign = 16;

const Phases& phases(bool large) {
#if defined(__x86_64__)
  if (capability() >= Capability::kAvx512) return phases_avx512(large);
  if (capability() >= Capability::kAvx2) return phases_avx2(large);
#endif
  return phases_portable(large);
}

struct Schedule {
  const Plan& plan;
  const Phases& phases;
  int64_t points, block_tiles, blocks;

  int64_t scratch_floats() const { return points * (plan.in_point_stride + plan.out_point_stride); }

  Block block(int64_t index, float* scratch) const {
    const int64_t first = index * block_tiles;
    return {first, std::min(block_tiles, plan.tiles - first), scratch, scratch + points * plan.in_point_stride};
  }
  int64_t inputs(const Block& b) const { return b.tiles * divide_up(plan.in_channels, kChunk); }
  int64_t products() const { return points * divide_up(plan.panels, phases.panels_at_once); }
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

void run(Plan& plan, bool large, const Tensor& like) {
  const int64_t points = large ? 36 : 16;
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
  const Schedule schedule{plan, phases(large), points, block_tiles, divide_up(plan.tiles, block_tiles)};
  const Tensor scratch = torch::stable::new_empty(like, {workers * schedule.scratch_floats()});
  const auto run_all = whole_blocks ? run_blocks : run_phases;
  run_all(schedule, threads, scratch.mutable_data_ptr<float>());
}

// The Python entry explains mistakes; these keep a direct call through torch.ops from reading stray memory.
void check(const Tensor& input, const Tensor& weight, const std::optional<Tensor>& bias, int64_t out_channels,
           int64_t padding) {
  STD_TORCH_CHECK(input.scalar_type() == ScalarType::Float && weight.scalar_type() == ScalarType::Float,
                  "winograd_conv2d: input and weight must be float32");
  STD_TORCH_CHECK(input.dim() == 4, "winograd_conv2d: input must be [N, C, H, W]");
  STD_TORCH_CHECK(weight.dim() == 4 && (weight.size(0) == 16 || weight.size(0) == 36) &&
                      weight.size(3) == kPanelWidth && weight.size(2) == input.size(1) && input.size(1) > 0,
                  "winograd_conv2d: weight must be [16 or 36, panels, C, 16], packed for the C of input");
  STD_TORCH_CHECK(out_channels > 0 && divide_up(out_channels, kPanelWidth) == weight.size(1),
                  "winograd_conv2d: out_channels must be that of the packed weight");
  STD_TORCH_CHECK(padding >= 0 && input.size(2) + 2 * padding >= 3 && input.size(3) + 2 * padding >= 3,
                  "winograd_conv2d: padding must be >= 0 and the padded input at least 3 x 3");
  if (!bias) return;
  STD_TORCH_CHECK(bias->scalar_type() == ScalarType::Float && bias->dim() == 1 && bias->size(0) == out_channels,
                  "winograd_conv2d: bias must be float32 and [out_channels]");
}

void check_residual(const Tensor& residual, const std::vector<int64_t>& shape) {
  STD_TORCH_CHECK(residual.scalar_type() == ScalarType::Float && residual.dim() == 4 &&
                      std::equal(shape.begin(), shape.end(), residual.sizes().begin()),
                  "winograd_conv2d: residual must be float32 and of the shape of the output");
}

// The sizes of the problem; the caller adds the tensors.
Plan plan_for(const Tensor& input, const Tensor& weight, int64_t out_channels, int64_t padding) {
  const int64_t side = weight.size(0) == 36 ? 4 : 2;
  Plan plan{};
  plan.height = input.size(2);
  plan.width = input.size(3);
  plan.in_channels = input.size(1);
  plan.out_height = plan.height + 2 * padding - 2;
  plan.out_width = plan.width + 2 * padding - 2;
  plan.out_channels = out_channels;
  plan.padding = padding;
  plan.tiles_high = divide_up(plan.out_height, side);
  plan.tiles_wide = divide_up(plan.out_width, side);
  plan.tiles = input.size(0) * plan.tiles_high * plan.tiles_wide;
  plan.panels = weight.size(1);
  plan.in_stride = divide_up(plan.in_channels, kAlign) * kAlign;
  plan.out_stride = plan.panels * kPanelWidth;
  return plan;
}

Tensor winograd_conv2d(const Tensor& input, const Tensor& weight, const std::optional<Tensor>& bias,
                       const std::optional<Tensor>& residual, int64_t out_channels, int64_t padding,
                       bool relu) {
  check(input, weight, bias, out_channels, padding);
  Plan plan = plan_for(input, weight, out_channels, padding);
  const std::vector<int64_t> shape{input.size(0), out_channels, plan.out_height, plan.out_width};
  if (residual) check_residual(*residual, shape);

  const Tensor x = channels_last(input), w = row_major(weight);
  const std::optional<Tensor> b = row_major(bias);
  const std::optional<Tensor> r = residual ? std::optional(channels_last(*residual)) : std::nullopt;
  const Tensor y = torch::stable::empty(shape, ScalarType::Float, std::nullopt, std::nullopt, std::nullopt,
                                        MemoryFormat::ChannelsLast);
  if (plan.tiles == 0) return y;
  plan.input = x.const_data_ptr<float>();
  plan.weight = w.const_data_ptr<float>();
  plan.bias = values_or_null(b);
  plan.residual = values_or_null(r);
  plan.output = y.mutable_data_ptr<float>();
  plan.relu = relu;
  run(plan, w.size(0) == 36, x);
  return y;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(leanmark, CPU, m) { m.impl("winograd_conv2d", TORCH_BOX(&winograd_conv2d)); }

}  // namespace leanmark::winograd
