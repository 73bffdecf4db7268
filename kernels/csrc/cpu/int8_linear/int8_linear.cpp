// The operator: checks, scratch memory, and how the work is shared out over threads.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <optional>
#include <vector>

#include "cpu/int8_linear/plan.h"
#include "cpu/panels.h"
#include "cpu/tensors.h"

namespace leanmark::int8_linear {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

constexpr int64_t kBlockBytes = 32 * 1024;      // of activations: they stay in L1 next to the panel in use
constexpr int64_t kWorkPerThread = 1 << 16;     // multiply-adds that outweigh waking a thread
constexpr int64_t kValuesPerThread = 1 << 14;   // values to pack that do

const Kernel& kernel() {
#if defined(__x86_64__)
  if (capability() >= Capability::kAvx2) return kernel_avx2();
#endif
  return kernel_portable();
}

bool is_vector(const Tensor& values, int64_t length) {
  return values.scalar_type() == ScalarType::Float && values.dim() == 1 && values.size(0) == length;
}

// The Python entry explains mistakes; these keep a direct call through torch.ops from reading stray memory.
void check(const Tensor& input, const Tensor& weight, const Tensor& scale, const Tensor& input_scale,
           const std::optional<Tensor>& bias, int64_t zero_point, int64_t columns, int64_t rows) {
  const int64_t depth = input.size(input.dim() - 1);
  STD_TORCH_CHECK(depth <= kDeepest, "int8_linear: the last dimension of input must be at most 65536");
  STD_TORCH_CHECK(columns >= 0 && weight.scalar_type() == ScalarType::Char && weight.dim() == 2 &&
                      weight.size(0) == divide_up(columns, kPanelWidth) &&
                      weight.size(1) == divide_up(depth, kDepthStep) * kDepthStep * kPanelWidth + int64_t(sizeof(Footer)),
                  "int8_linear: weight must be packed for the K of input and for out_features");
  STD_TORCH_CHECK(is_vector(scale, columns), "int8_linear: scale must be float32 and [out_features]");
  STD_TORCH_CHECK(is_vector(input_scale, 1) || is_vector(input_scale, rows),
                  "int8_linear: input_scale must be float32 and [1] or [rows]");
  STD_TORCH_CHECK(!bias || is_vector(*bias, columns), "int8_linear: bias must be float32 and [out_features]");
  STD_TORCH_CHECK(-128 <= zero_point && zero_point <= 255, "int8_linear: zero_point must be a value of input's dtype");
}

void read_limits(Plan& plan) {
  for (int64_t panel = 0; panel < plan.panels; ++panel) {
    Footer footer;
    std::memcpy(&footer, plan.weight + panel * plan.panel_bytes + plan.padded_depth * kPanelWidth, sizeof(footer));
    plan.largest_pair = std::max<int64_t>(plan.largest_pair, footer.pair);
    plan.largest_quad = std::max<int64_t>(plan.largest_quad, footer.quad);
  }
}

void run(const Plan& plan) {
  const Kernel& chosen = kernel();
  const int64_t pack_grain = std::max<int64_t>(1, kValuesPerThread / std::max<int64_t>(1, kTileRows * plan.depth));
  torch::stable::parallel_for(0, plan.tiles, pack_grain, [&](int64_t begin, int64_t end) {
    chosen.pack(plan, begin, end);
  });
  const int64_t items = divide_up(plan.tiles, plan.block_tiles) * plan.panels;
  const int64_t work = std::max<int64_t>(1, plan.block_tiles * kTileRows * plan.depth * kPanelWidth);
  torch::stable::parallel_for(0, items, std::max<int64_t>(1, kWorkPerThread / work), [&](int64_t begin, int64_t end) {
    chosen.multiply(plan, begin, end);
  });
}

Plan plan_for(const Tensor& x, const Tensor& w, int64_t rows, int64_t columns) {
  Plan plan{};
  plan.input = x.const_data_ptr();
  plan.weight = w.const_data_ptr<int8_t>();
  plan.rows = rows;
  plan.depth = x.size(x.dim() - 1);
  plan.columns = columns;
  plan.is_unsigned = x.scalar_type() == ScalarType::Byte;
  plan.padded_depth = divide_up(plan.depth, kDepthStep) * kDepthStep;
  plan.panels = w.size(0);
  plan.panel_bytes = w.size(1);
  plan.tiles = divide_up(rows, kTileRows);
  // Room for 16 bits, and a cache line more, or tiles would fall into few sets of the cache.
  plan.tile_bytes = int64_t(sizeof(Header)) + kTileRows * plan.padded_depth * 2 + 64;
  plan.block_tiles = std::clamp<int64_t>(kBlockBytes / plan.tile_bytes, 1, std::max<int64_t>(1, plan.tiles));
  return plan;
}

Tensor int8_linear(const Tensor& input, const Tensor& weight, const Tensor& scale, const Tensor& input_scale,
                   int64_t zero_point, const std::optional<Tensor>& bias, int64_t out_features, bool relu) {
  STD_TORCH_CHECK((input.scalar_type() == ScalarType::Char || input.scalar_type() == ScalarType::Byte) &&
                      input.dim() >= 1,
                  "int8_linear: input must be int8 or uint8 and [*, K]");
  std::vector<int64_t> shape(input.sizes().begin(), input.sizes().end());
  int64_t rows = 1;
  for (size_t i = 0; i + 1 < shape.size(); ++i) rows *= shape[i];
  shape.back() = out_features;
  check(input, weight, scale, input_scale, bias, zero_point, out_features, rows);

  const Tensor x = row_major(input), w = row_major(weight), s = row_major(scale), xs = row_major(input_scale);
  const std::optional<Tensor> b = row_major(bias);
  const Tensor y = torch::stable::new_empty(s, shape);
  if (rows == 0 || out_features == 0) return y;
  Plan plan = plan_for(x, w, rows, out_features);
  plan.scale = s.const_data_ptr<float>();
  plan.input_scale = xs.const_data_ptr<float>();
  plan.input_scale_step = xs.size(0) == 1 ? 0 : 1;
  plan.bias = values_or_null(b);
  plan.output = y.mutable_data_ptr<float>();
  plan.zero_point = zero_point;
  plan.relu = relu;
  for (int64_t i = 0; i < out_features; ++i) {
    STD_TORCH_CHECK(std::isfinite(plan.scale[i]), "int8_linear: scale must be finite");
  }
  read_limits(plan);
  const Tensor scratch = torch::stable::new_empty(w, {plan.tiles * plan.tile_bytes});
  plan.scratch = reinterpret_cast<char*>(scratch.mutable_data_ptr<int8_t>());
  run(plan);
  return y;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(leanmark, CPU, m) { m.impl("int8_linear", TORCH_BOX(&int8_linear)); }

}  // namespace leanmark::int8_linear
