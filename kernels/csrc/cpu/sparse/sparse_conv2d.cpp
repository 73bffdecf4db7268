// The operator: checks, and a convolution as a product with the positions of a grid.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <array>
#include <optional>
#include <vector>

#include "cpu/checks.h"
#include "cpu/sparse/operands.h"
#include "cpu/tensors.h"
#include "cpu/window.h"

namespace leanmark::sparse {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

constexpr const char* kName = "sparse_conv2d";
constexpr int64_t kMostCopies = 4;      // of the input, one for each column of the filter
constexpr int64_t kLeastAlignment = 8;  // floats

void check(const Tensor& input, const Window& w) {
  STD_TORCH_CHECK(input.scalar_type() == ScalarType::Float && input.dim() == 4,
                  "sparse_conv2d: input must be float32 and [N, C, H, W]");
  STD_TORCH_CHECK(w.taps() <= kIndices, "sparse_conv2d: kernel_size must have at most 256 taps");
  STD_TORCH_CHECK(w.fits(input.size(2), 0) && w.fits(input.size(3), 1),
                  "sparse_conv2d: the padded input must be at least as large as the filter");
}

// Adds a tap that reads (y, x) pixels behind the window's corner, and its phase if it is the first one there.
void add_tap(Grid& g, int64_t y, int64_t x) {
  const int64_t within = g.shifted ? 0 : x / g.stride[1];
  const int64_t wanted[2] = {y % g.stride[0], x - within * g.stride[1]};
  int64_t phase = 0;
  while (phase < g.phases && (g.phase[phase][0] != wanted[0] || g.phase[phase][1] != wanted[1])) ++phase;
  if (phase == g.phases) {
    g.phase[phase][0] = wanted[0];
    g.phase[phase][1] = wanted[1];
    ++g.phases;
  }
  g.tap_phase[g.taps] = phase;
  g.tap_offset[g.taps++] = y / g.stride[0] * g.grid_width + within;
}

// How many columns rows of the grid have, and whether taps of one column have a phase of their own. Single entries
// gain where rows then begin where vectors do: their loads cross no cache lines, which would halve their speed. Narrow
// rows would have too many columns for nothing. Blocks load seldom, and gain where narrow rows have fewer columns.
void choose_width(Grid& g, const Window& w, const Kernel& kernel, int64_t block) {
  const int64_t reach = (w.size[1] - 1) * w.dilation[1] / g.stride[1];
  g.grid_width = g.out_width + reach;
  if (w.size[1] == 1 || w.size[1] > kMostCopies) return;
  if (block > 1) {
    g.shifted = 8 * reach > g.out_width;
    if (g.shifted) g.grid_width = g.out_width;
    return;
  }
  for (int64_t multiple = kernel.lanes; multiple >= kLeastAlignment; multiple /= 2) {
    const int64_t width = divide_up(g.out_width, multiple) * multiple;
    if (4 * width > 5 * g.out_width) continue;
    g.shifted = true;
    g.grid_width = width;
    return;
  }
}

// The grid of one image, and the offset of each tap.
void lay_out(Plan& plan, const Tensor& input, const Window& w, const Kernel& kernel) {
  Grid& g = plan.grid;
  g.height = input.size(2);
  g.width = input.size(3);
  g.out_height = w.output(g.height, 0);
  g.out_width = w.output(g.width, 1);
  const int64_t taps = w.taps();
  if (taps == 1 && w.padding[0] + w.padding[1] == 0 && w.stride[0] * w.stride[1] == 1) {
    g.width = g.out_width = g.height * g.width;  // nothing but one long row
    g.height = g.out_height = 1;
  }
  for (int axis = 0; axis < 2; ++axis) {
    g.stride[axis] = w.stride[axis];
    g.padding[axis] = w.padding[axis];
  }
  choose_width(g, w, kernel, plan.weights.block);
  const int64_t reach[2] = {(w.size[0] - 1) * w.dilation[0], (w.size[1] - 1) * w.dilation[1]};
  g.halo = reach[0] / g.stride[0] * g.grid_width + (g.shifted ? 0 : reach[1] / g.stride[1]);
  STD_TORCH_CHECK(g.halo <= kLargest, "sparse_conv2d: dilation must be smaller: the filter reaches too far");
  for (int64_t tap = 0; tap < taps; ++tap) {
    add_tap(g, tap / w.size[1] * w.dilation[0], tap % w.size[1] * w.dilation[1]);
  }
  plan.columns = (g.out_height - 1) * g.grid_width + g.out_width;
}

// The fastest kernel, for which `plan` is laid out and cut.
const Kernel& fitting(Plan& plan, const Tensor& input, const Window& w) {
  const Kernel& fastest = kernel(plan.weights.block);
  lay_out(plan, input, w, fastest);
  if (cut(plan, fastest)) return fastest;
  const Kernel& far = kernel_of_far_offsets(plan.weights.block);
  plan.grid = {};
  lay_out(plan, input, w, far);
  cut(plan, far);
  return far;
}

// Row-major. Networks that keep channels last are common, and torch takes longer to reorder their images.
Tensor planes(const Tensor& input, const Kernel& kernel) {
  const int64_t images = input.size(0), channels = input.size(1), pixels = input.size(2) * input.size(3);
  if (input.is_contiguous() || !is_channels_last(input) || pixels * channels == 0) return row_major(input);
  const Tensor x = allocate_row_major(input.sizes());
  const float* from = input.const_data_ptr<float>();
  float* to = x.mutable_data_ptr<float>();
  for (int64_t image = 0; image < images; ++image) {
    kernel.planes(from + image * pixels * channels, pixels, channels, to + image * pixels * channels);
  }
  return x;
}

Tensor sparse_conv2d(const Tensor& input, const Tensor& values, const Tensor& indices, const Tensor& starts,
                     const std::optional<Tensor>& bias, const std::optional<Tensor>& residual,
                     int64_t out_channels, const std::vector<int64_t>& numbers, bool relu) {
  const Window window = window_of(kName, numbers, true);
  check(input, window);
  const PackedWeights packed{row_major(values), row_major(indices), row_major(starts)};
  Plan plan{};
  plan.weights = packed.checked(kName, out_channels, input.size(1), window.taps());
  const std::array<int64_t, 4> shape{input.size(0), out_channels, window.output(input.size(2), 0),
                                     window.output(input.size(3), 1)};
  check_bias(kName, bias, out_channels);
  check_residual(kName, residual, shape);

  const Tensor x = planes(input, kernel(plan.weights.block));
  const std::optional<Tensor> b = row_major(bias), r = row_major(residual);
  const Tensor y = allocate_row_major(shape);
  if (shape[0] == 0) return y;
  plan.input = x.const_data_ptr<float>();
  plan.input_end = plan.input + x.numel();
  plan.bias = values_or_null(b);
  plan.residual = values_or_null(r);
  plan.output = y.mutable_data_ptr<float>();
  plan.relu = relu;
  plan.images = shape[0];
  run(plan, fitting(plan, x, window).convolution);
  return y;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(leanmark, CPU, m) { m.impl("sparse_conv2d", TORCH_BOX(&sparse_conv2d)); }

}  // namespace leanmark::sparse
