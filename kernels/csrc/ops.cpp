// The schemas of all native operators. leanmark_kernels/ops/ repeats them for builds without native code,
// and a test holds the two together.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(leanmark, m) {
  m.def("linear_relu(Tensor input, Tensor weight, Tensor? bias) -> Tensor");
  m.def("winograd_conv2d(Tensor input, Tensor weight, Tensor? bias, Tensor? residual, int out_channels, "
        "int padding, bool relu) -> Tensor");
  m.def("packed_linear(Tensor input, Tensor weight, Tensor? scale, Tensor? bias, int out_features, bool relu) "
        "-> Tensor");
  m.def("cpu_capability() -> str");
}
