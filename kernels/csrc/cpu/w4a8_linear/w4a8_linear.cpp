// The operator: checks, scratch memory, and how the work is shared out over threads.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstdint>
#include <optional>

#include "cpu/checks.h"
#include "cpu/panels.h"
#include "cpu/tensors.h"
#include "cpu/threads.h"
#include "cpu/w4a8_linear/plan.h"

namespace leanmark::w4a8_linear {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

constexpr int64_t kBlockBytes = 128 * 1024;  // of activations, next to the panel in use

const Kernel& kernel() {
#if defined(__x86_64__)
  if (capability() >= Capability::kAvx512Vnni) return kernel_avx512vnni();
  if (capability() >= Capability::kAvx2) return kernel_avx2();
#endif
  return kernel_portable();
}

bool fits(const Tensor& values, int64_t panels, int64_t groups) {
  return values.scalar_type() == ScalarType::Float && values.dim() == 3 && values.size(0) == panels &&
         values.size(1) == groups && values.size(2) == kPanelWidth;
}

// The Python entry explains mistakes; these keep a direct call through torch.ops from reading stray memory.
void check(const Tensor& input, const Tensor& weight, const Tensor& scale, const std::optional<Tensor>& zero,
           const std::optional<Tensor>& bias, int64_t columns) {
  STD_TORCH_CHECK(input.scalar_type() == ScalarType::Float && input.dim() >= 1,
                  "w4a8_linear: input must be float32 and [*, K]");
  const int64_t depth = input.size(input.dim() - 1), panels = divide_up(columns, kPanelWidth);
  STD_TORCH_CHECK(columns >= 0 && weight.scalar_type() == ScalarType::Byte && weight.dim() == 4 &&
                      weight.size(0) == panels && weight.size(1) * kStep == depth &&
                      weight.size(2) == kPanelWidth && weight.size(3) == 4,
                  "w4a8_linear: weight must be uint8 and packed for the K of input and for out_features");
  STD_TORCH_CHECK(scale.dim() == 3 && fits(scale, panels, scale.size(1)),
                  "w4a8_linear: scale must be float32 and [panels, groups, 16]");
  const int64_t groups = scale.size(1);
  STD_TORCH_CHECK(depth == 0 || (groups > 0 && depth % (32 * groups) == 0),
                  "w4a8_linear: the groups of scale must divide K into multiples of 32");
  STD_TORCH_CHECK(!zero || fits(*zero, panels, groups), "w4a8_linear: zero must be as scale");
  check_bias("w4a8_linear", bias, columns);
}

void run(const Plan& plan) {
  const Kernel& chosen = kernel();
  const double inputs = double(plan.rows) * plan.depth, weights = double(plan.depth) * plan.panels * kPanelWidth;
  parallel_for(plan.tiles, {inputs * sizeof(float), 0}, [&](int64_t begin, int64_t end, int64_t) {
    chosen.quantize(plan, begin, end);
  });
  const int64_t items = divide_up(plan.tiles, plan.block_tiles) * plan.panels;
  parallel_for(items, {weights / 2, weights * plan.rows}, [&](int64_t begin, int64_t end, int64_t) {
    chosen.multiply(plan, begin, end);
  });
}

Tensor w4a8_linear(const Tensor& input, const Tensor& weight, const Tensor& scale, const std::optional<Tensor>& zero,
                   const std::optional<Tensor>& bias, int64_t out_features, bool relu) {
  check(input, weight, scale, zero, bias, out_features);
  const Tensor x = row_major(input), w = row_major(weight), s = row_major(scale);
  const std::optional<Tensor> z = row_major(zero), b = row_major(bias);
  const int64_t depth = input.size(input.dim() - 1);
  const Tensor y = allocate_rows(input, out_features);
  const int64_t rows = rows_of(input);
  if (rows == 0 || out_features == 0) return y;

  Plan plan{};
  plan.input = x.const_data_ptr<float>();
  plan.weight = w.const_data_ptr<uint8_t>();
  plan.scale = s.const_data_ptr<float>();
  plan.zero = values_or_null(z);
  plan.bias = values_or_null(b);
  plan.output = y.mutable_data_ptr<float>();
  plan.rows = rows;
  plan.depth = depth;
  plan.columns = out_features;
  plan.group = depth == 0 ? 32 : depth / scale.size(1);
  plan.relu = relu;
  plan.span = span_for(plan.group);
  plan.spans = depth / plan.span;
  plan.panels = w.size(0);
  plan.tiles = divide_up(rows, kTileRows);
  // Values, then scales, offsets and sums; a cache line more, or tiles would fall into few sets of the cache.
  plan.tile_bytes = kTileRows * (depth + 3 * plan.spans * int64_t(sizeof(float))) + 64;
  plan.block_tiles = std::clamp<int64_t>(kBlockBytes / plan.tile_bytes, 1, plan.tiles);
  const Tensor scratch = allocate_bytes(plan.tiles * plan.tile_bytes);
  plan.scratch = reinterpret_cast<char*>(scratch.mutable_data_ptr<uint8_t>());
  run(plan);
  return y;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(leanmark, CPU, m) { m.impl("w4a8_linear", TORCH_BOX(&w4a8_linear)); }

}  // namespace leanmark::w4a8_linear
