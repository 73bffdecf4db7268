// The operator: checks, and the scratch memory of blocks of tiles.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <optional>

#include "cpu/blocks.h"
#include "cpu/checks.h"
#include "cpu/int8_linear/images.h"
#include "cpu/int8_winograd/plan.h"
#include "cpu/panels.h"
#include "cpu/tensors.h"

namespace leanmark::int8_winograd {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// Scratch that one block may take: with the panels in use, about what a core's own cache holds.
constexpr int64_t kBlockBytes = 768 * 1024;
constexpr int64_t kLine = 64;

const Phases& phases() {
#if defined(__x86_64__)
  if (capability() >= Capability::kAvx512Vnni) return phases_avx512vnni();
  if (capability() >= Capability::kAvx2) return phases_avx2();
#endif
  return phases_portable();
}

struct Schedule {
  static constexpr int kPhases = 2;
  static constexpr int64_t kWeightBytes = kIn * kWeightStride * sizeof(int16_t);

  const Plan& plan;
  const Phases& phases;
  Blocks blocks;
  char* scratch;

  static int64_t bytes(const Plan& plan, const Blocks& blocks) {
    return blocks.workers * own_bytes(plan) + (blocks.shared ? 1 : blocks.workers) * input_bytes(plan);
  }
  static int64_t input_bytes(const Plan& plan) { return kPoints * plan.in_point_stride * int64_t(sizeof(int16_t)); }
  static int64_t own_bytes(const Plan& plan) {
    return kWeightBytes + kPoints * plan.out_point_stride * int64_t(sizeof(int32_t));
  }

  Block block(int64_t index, int64_t worker) const {
    char* own = scratch + worker * own_bytes(plan);
    char* inputs = scratch + blocks.workers * own_bytes(plan) + (blocks.shared ? 0 : worker) * input_bytes(plan);
    return {blocks.first(index), blocks.tiles_of(index), reinterpret_cast<int16_t*>(inputs),
            reinterpret_cast<int16_t*>(own), reinterpret_cast<int32_t*>(own + kWeightBytes)};
  }
  int64_t items(int phase, const Block& b) const {
    return phase == 0 ? b.tiles * divide_up(plan.in_channels, kChunk) : divide_up(plan.panels, kGroup) * plan.slices;
  }
  void run(int phase, const Block& b, int64_t begin, int64_t end) const {
    const Phase chosen = phase == 0 ? phases.transform_inputs : phases.multiply;
    chosen(plan, b, begin, end);
  }
};

void run(Plan& plan) {
  const int64_t per_tile =
      kPoints * (plan.in_stride * int64_t(sizeof(int16_t)) + kOutStride * int64_t(sizeof(int32_t)));
  const Blocks blocks = blocks_of(plan.tiles, (kBlockBytes - Schedule::kWeightBytes) / per_tile, kTileStep);
  const int64_t slices = blocks.shared ? divide_up(blocks.workers, divide_up(plan.panels, kGroup)) : 1;
  plan.slice_tiles = divide_up(divide_up(blocks.block_tiles, slices), kTileStep) * kTileStep;
  plan.slices = divide_up(blocks.block_tiles, plan.slice_tiles);

  // One cache line more, or the points of a tile would fall into few sets of the cache.
  plan.in_point_stride = blocks.block_tiles * plan.in_stride + kLine / int64_t(sizeof(int16_t));
  plan.out_point_stride = plan.slice_tiles * kOutStride + kLine / int64_t(sizeof(int32_t));
  const Tensor scratch = allocate_bytes(Schedule::bytes(plan, blocks));
  run_all(Schedule{plan, phases(), blocks, static_cast<char*>(scratch.mutable_data_ptr())});
}

// The Python entry explains mistakes; these keep a direct call through torch.ops from reading stray memory.
void check(const Tensor& input, const Tensor& weight, int64_t out_channels, int64_t padding) {
  STD_TORCH_CHECK(0 < input.size(1) && input.size(1) <= kMostChannels,
                  "int8_winograd_conv2d: input must have from 1 to 1820 channels");
  STD_TORCH_CHECK(weight.scalar_type() == ScalarType::Char && weight.dim() == 5 &&
                      weight.size(1) == divide_up(input.size(1), 4) * 2 && weight.size(2) == kWeights &&
                      weight.size(3) == kPanelWidth && weight.size(4) == 2,
                  "int8_winograd_conv2d: weight must be int8 [panels, pairs, 9, 16, 2], packed for the C of input");
  STD_TORCH_CHECK(out_channels > 0 && divide_up(out_channels, kPanelWidth) == weight.size(0),
                  "int8_winograd_conv2d: out_channels must be that of the packed weight");
  STD_TORCH_CHECK(padding >= 0 && padding <= kLargest, "int8_winograd_conv2d: padding must be 0 to 1048575");
  STD_TORCH_CHECK(input.size(2) + 2 * padding >= 3 && input.size(3) + 2 * padding >= 3,
                  "int8_winograd_conv2d: the padded input must be at least 3 x 3");
}

// The sizes of the problem; the caller adds the tensors.
Plan plan_for(const Tensor& input, const Tensor& weight, int64_t out_channels, int64_t padding) {
  Plan plan{};
  plan.height = input.size(2);
  plan.width = input.size(3);
  plan.in_channels = input.size(1);
  plan.out_height = plan.height + 2 * padding - 2;
  plan.out_width = plan.width + 2 * padding - 2;
  plan.out_channels = out_channels;
  plan.padding = padding;
  plan.tiles_high = divide_up(plan.out_height, kOut);
  plan.tiles_wide = divide_up(plan.out_width, kOut);
  plan.tiles = input.size(0) * plan.tiles_high * plan.tiles_wide;
  plan.panels = weight.size(0);
  plan.depth = weight.size(1) * 2;
  plan.in_stride = divide_up(plan.in_channels, kLanes) * kLanes;
  return plan;
}

Tensor int8_winograd_conv2d(const Tensor& input, const Tensor& weight, const Tensor& scale,
                            const std::optional<Tensor>& input_scale, int64_t zero_point,
                            const std::optional<Tensor>& bias, const std::optional<Tensor>& residual,
                            int64_t out_channels, int64_t padding, bool relu) {
  int8_linear::check_images("int8_winograd_conv2d", input, input_scale, zero_point);
  check(input, weight, out_channels, padding);
  STD_TORCH_CHECK(is_vector(scale, out_channels), "int8_winograd_conv2d: scale must be float32 and [out_channels]");
  check_bias("int8_winograd_conv2d", bias, out_channels);
  Plan plan = plan_for(input, weight, out_channels, padding);
  const std::array<int64_t, 4> shape{input.size(0), out_channels, plan.out_height, plan.out_width};
  check_residual("int8_winograd_conv2d", residual, shape);

  const Tensor w = row_major(weight), s = row_major(scale);
  const std::optional<Tensor> b = row_major(bias), r = channels_last(residual);
  const Tensor y = allocate_channels_last(shape);
  if (plan.tiles == 0) return y;
  const int8_linear::Images images = int8_linear::images_of(input, input_scale);
  plan.input = images.values;
  plan.is_unsigned = images.is_unsigned;
  plan.weight = w.const_data_ptr<int8_t>();
  plan.scale = s.const_data_ptr<float>();
  plan.input_scale = images.scale;
  plan.input_scale_step = images.one_scale ? 0 : 1;
  plan.bias = values_or_null(b);
  plan.residual = values_or_null(r);
  plan.output = y.mutable_data_ptr<float>();
  plan.zero_point = zero_point;
  plan.relu = relu;
  for (int64_t i = 0; i < out_channels; ++i) {
    STD_TORCH_CHECK(std::isfinite(plan.scale[i]), "int8_winograd_conv2d: scale must be finite");
  }
  run(plan);
  return y;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(leanmark, CPU, m) {
  m.impl("int8_winograd_conv2d", TORCH_BOX(&int8_winograd_conv2d));
}

}  // namespace leanmark::int8_winograd
