// The schemas of all native operators. leanmark_kernels/ops/ repeats them for builds without native code,
// and a test holds the two together.
// A `window` is the list of numbers that cpu/window.h reads.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(leanmark, m) {
  m.def("linear_relu(Tensor input, Tensor weight, Tensor? bias) -> Tensor");
  m.def("winograd_conv2d(Tensor input, Tensor weight, Tensor? bias, Tensor? residual, int out_channels, "
        "int padding, int stride, bool relu) -> Tensor");
  m.def("packed_linear(Tensor input, Tensor weight, Tensor? scale, Tensor? bias, int out_features, bool relu) "
        "-> Tensor");
  m.def("add_ceiling(int steps) -> int");
  m.def("multiply_add_ceiling(int steps) -> int");
  m.def("read_ceiling(Tensor input) -> int");
  m.def("w4a8_linear(Tensor input, Tensor weight, Tensor scale, Tensor? zero, Tensor? bias, int out_features, "
        "bool relu) -> Tensor");
  m.def("int8_linear(Tensor input, Tensor weight, Tensor scale, Tensor input_scale, int zero_point, Tensor? bias, "
        "int out_features, bool relu) -> Tensor");
  m.def("int8_dynamic_linear(Tensor input, Tensor weight, Tensor scale, Tensor? bias, int bits, int out_features, "
        "bool relu) -> Tensor");
  m.def("int8_conv2d(Tensor input, Tensor weight, Tensor scale, Tensor? input_scale, int zero_point, Tensor? bias, "
        "int[] window, bool relu) -> Tensor");
  m.def("int8_winograd_conv2d(Tensor input, Tensor weight, Tensor scale, Tensor? input_scale, int zero_point, "
        "Tensor? bias, Tensor? residual, int out_channels, int padding, bool relu) -> Tensor");
  m.def("quantize_int8(Tensor input, int bits) -> (Tensor, Tensor)");
  m.def("sparse_linear(Tensor input, Tensor values, Tensor indices, Tensor starts, Tensor? bias, "
        "Tensor? residual, int out_features, bool relu, Tensor? few_rows=None) -> Tensor");
  m.def("sparse_conv2d(Tensor input, Tensor values, Tensor indices, Tensor starts, Tensor? bias, "
        "Tensor? residual, int out_channels, int[] window, bool relu) -> Tensor");
  m.def("direct_conv2d(Tensor input, Tensor weight, Tensor? bias, Tensor? residual, int out_channels, "
        "int[] window, int activation) -> Tensor");
  m.def("depthwise_conv2d(Tensor input, Tensor weight, Tensor? bias, int stride, int padding, int activation) "
        "-> Tensor");
  m.def("max_pool2d(Tensor input, int[] window) -> Tensor");
  m.def("mean_pool2d(Tensor input) -> Tensor");
  m.def("inverted_residual(Tensor input, Tensor? expand, Tensor? expand_bias, Tensor depthwise, "
        "Tensor? depthwise_bias, Tensor project, Tensor? project_bias, int out_channels, int stride, "
        "bool residual) -> Tensor");
  m.def("cpu_capability() -> str");
}
