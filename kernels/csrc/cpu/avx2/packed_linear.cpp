// Packed linear layers for AVX2 and FMA.
#define LEANMARK_TARGET __attribute__((target("avx2,fma")))

#include "cpu/packed_linear/kernel.h"

namespace leanmark::packed_linear {
namespace {

template <class Panel>
LEANMARK_TARGET void panels(const Plan& p, int64_t begin, int64_t end) {
  run<Panel, 8>(p, begin, end);
}

}  // namespace

Kernel kernel_avx2(Weights weights, int64_t rows) {
  const int64_t at_once = panels_at_once<8>(rows);
  if (weights == Weights::kInt8) return {panels<Int8Panel>, at_once};
  if (weights == Weights::kFloat16) return {panels<Float16Panel>, at_once};
  if (weights == Weights::kBFloat16) return {panels<BFloat16Panel>, at_once};
  return {panels<Float32Panel>, at_once};
}

}  // namespace leanmark::packed_linear
