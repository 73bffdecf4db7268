// The schemas of all native operators. leanmark_kernels/ops.py repeats them for builds without native code,
// and a test holds the two together.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(leanmark, m) {
  m.def("linear_relu(Tensor input, Tensor weight, Tensor? bias) -> Tensor");
  m.def("cpu_capability() -> str");
}
