// Packed linear layers for any CPU.
#define LEANMARK_TARGET

#include "cpu/packed_linear/kernel.h"

namespace leanmark::packed_linear {
namespace {

template <class Panel>
LEANMARK_TARGET void panels(const Plan& p, int64_t begin, int64_t end) {
  run<Panel, 4>(p, begin, end);
}

}  // namespace

Kernel kernel_portable(Weights weights, int64_t rows) {
  const int64_t at_once = panels_at_once<4>(rows);
  if (weights == Weights::kInt8) return {panels<Int8Panel>, at_once};
  if (weights == Weights::kFloat16) return {panels<Float16Panel>, at_once};
  if (weights == Weights::kBFloat16) return {panels<BFloat16Panel>, at_once};
  return {panels<Float32Panel>, at_once};
}

}  // namespace leanmark::packed_linear
