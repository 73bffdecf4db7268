// The operators: every thread of torch's does the same at once.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstdint>

#include "cpu/capability.h"
#include "cpu/ceilings/kernel.h"
#include "cpu/tensors.h"

namespace leanmark::ceilings {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

volatile float sink;  // or the compiler would see that nobody needs the results

Kernels kernels() {
#if defined(__x86_64__)
  if (capability() >= Capability::kAvx512) return kernels_avx512();
  if (capability() >= Capability::kAvx2) return kernels_avx2();
#endif
  return kernels_portable();
}

int64_t add_ceiling(int64_t steps) {
  const int64_t threads = torch::stable::get_num_threads();
  torch::stable::parallel_for(0, threads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) sink = static_cast<float>(adds(steps));
  });
  return threads * steps * kNumbers * kTurns;
}

int64_t multiply_add_ceiling(int64_t steps) {
  const Kernels chosen = kernels();
  const int64_t threads = torch::stable::get_num_threads();
  torch::stable::parallel_for(0, threads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) sink = chosen.multiply_adds(steps);
  });
  return threads * steps * chosen.flops_per_step;
}

int64_t read_ceiling(const Tensor& input) {
  STD_TORCH_CHECK(input.scalar_type() == ScalarType::Float && input.is_contiguous(),
                  "read_ceiling: input must be float32 and contiguous");
  const Kernels chosen = kernels();
  const float* from = input.const_data_ptr<float>();
  const int64_t count = input.numel(), threads = torch::stable::get_num_threads();
  const int64_t share = divide_up(count, threads);
  torch::stable::parallel_for(0, threads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = std::min(count, i * share);
      sink = chosen.read(from + first, std::min(share, count - first));
    }
  });
  return count * static_cast<int64_t>(sizeof(float));
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(leanmark, CPU, m) { m.impl("read_ceiling", TORCH_BOX(&read_ceiling)); }
STABLE_TORCH_LIBRARY_IMPL(leanmark, CompositeExplicitAutograd, m) {
  m.impl("add_ceiling", TORCH_BOX(&add_ceiling));
  m.impl("multiply_add_ceiling", TORCH_BOX(&multiply_add_ceiling));
}

}  // namespace leanmark::ceilings
