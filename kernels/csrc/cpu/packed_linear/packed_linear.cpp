// The operator: checks, and how panels are shared out over threads.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <optional>

#include "cpu/checks.h"
#include "cpu/packed_linear/plan.h"
#include "cpu/panels.h"
#include "cpu/tensors.h"
#include "cpu/threads.h"

namespace leanmark::packed_linear {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

constexpr int64_t kPageFloats = 1024, kLineFloats = 16;

Weights weights_of(const Tensor& weight) {
  switch (weight.scalar_type()) {
    case ScalarType::Char: return Weights::kInt8;
    case ScalarType::Half: return Weights::kFloat16;
    case ScalarType::BFloat16: return Weights::kBFloat16;
    default: return Weights::kFloat32;
  }
}

// The Python entry explains mistakes; these keep a direct call through torch.ops from reading stray memory.
void check_weight(const Tensor& weight, int64_t depth, int64_t columns) {
  const bool pairs = weight.scalar_type() == ScalarType::BFloat16;
  STD_TORCH_CHECK(pairs || weight.scalar_type() == ScalarType::Float || weight.scalar_type() == ScalarType::Half ||
                      weight.scalar_type() == ScalarType::Char,
                  "packed_linear: weight must be float32, float16, bfloat16 or int8");
  STD_TORCH_CHECK(pairs ? weight.dim() == 4 && weight.size(1) == divide_up(depth, 2) && weight.size(3) == 2
                        : weight.dim() == 3 && weight.size(1) == depth,
                  "packed_linear: weight must be packed for the last dimension of input");
  STD_TORCH_CHECK(weight.size(2) == kPanelWidth && columns >= 0 &&
                      weight.size(0) == divide_up(columns, kPanelWidth),
                  "packed_linear: out_features must be that of the packed weight");
}

// A copy whose rows lie a cache line further apart: at a multiple of a page, they would share one set of the cache.
Tensor spread(const Tensor& x, int64_t rows, int64_t depth, int64_t stride) {
  const Tensor spread = allocate_row_major({rows, stride});
  const float* from = x.const_data_ptr<float>();
  float* to = spread.mutable_data_ptr<float>();
  for (int64_t row = 0; row < rows; ++row) {
    std::memcpy(to + row * stride, from + row * depth, depth * sizeof(float));
  }
  return spread;
}

Kernel kernel_for(Plan& plan, Weights weights, [[maybe_unused]] std::optional<Tensor>& planes) {
#if defined(__x86_64__)
  if (weights == Weights::kInt8 && plan.rows == 1 && capability() >= Capability::kAvx512Vnni) {
    planes = allocate_bytes(planes_bytes(plan.depth));
    const Kernel chosen = byte_kernel_avx512vnni(plan, static_cast<int8_t*>(planes->mutable_data_ptr()));
    if (chosen.run) return chosen;
  }
#endif
  return kernel(weights, plan.rows);
}

Tensor packed_linear(const Tensor& input, const Tensor& weight, const std::optional<Tensor>& scale,
                     const std::optional<Tensor>& bias, int64_t out_features, bool relu) {
  STD_TORCH_CHECK(input.scalar_type() == ScalarType::Float && input.dim() >= 1,
                  "packed_linear: input must be float32 and [*, K]");
  const int64_t depth = input.size(input.dim() - 1);
  check_weight(weight, depth, out_features);
  STD_TORCH_CHECK(!scale || is_vector(*scale, out_features), "packed_linear: scale must be float32 and [out_features]");
  check_bias("packed_linear", bias, out_features);

  const Tensor x = row_major(input), w = row_major(weight);
  const std::optional<Tensor> s = row_major(scale), b = row_major(bias);
  const Tensor y = allocate_rows(input, out_features);
  const int64_t rows = rows_of(input);
  if (rows == 0 || out_features == 0) return y;

  const bool collide = rows > 1 && depth > 0 && depth % kPageFloats == 0;
  const int64_t stride = collide ? depth + kLineFloats : depth;
  const Tensor a = collide ? spread(x, rows, depth, stride) : x;
  Plan plan{a.const_data_ptr<float>(), stride, w.const_data_ptr(), values_or_null(s), values_or_null(b),
            y.mutable_data_ptr<float>(), rows, depth, out_features, relu};
  std::optional<Tensor> planes;  // lives as long as the plan
  const Kernel chosen = kernel_for(plan, weights_of(w), planes);
  const int64_t panels = w.size(0);
  const int64_t groups = divide_up(panels, chosen.at_once);
  const double weights = double(depth) * panels * kPanelWidth;
  const Work work{weights * w.element_size(), weights * rows};
  parallel_for(groups, work, [&](int64_t begin, int64_t end, int64_t) {
    chosen.run(plan, begin * chosen.at_once, std::min(panels, end * chosen.at_once));
  });
  return y;
}

}  // namespace

Kernel kernel(Weights weights, int64_t rows) {
#if defined(__x86_64__)
  if (capability() >= Capability::kAvx512) return kernel_avx512(weights, rows);
  if (capability() >= Capability::kAvx2) return kernel_avx2(weights, rows);
#endif
  return kernel_portable(weights, rows);
}

STABLE_TORCH_LIBRARY_IMPL(leanmark, CPU, m) { m.impl("packed_linear", TORCH_BOX(&packed_linear)); }

}  // namespace leanmark::packed_linear
