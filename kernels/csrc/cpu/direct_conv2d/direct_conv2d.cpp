// The operator: checks, a frame of zeros where the windows want one, and how outputs are shared out over threads.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <vector>

#include "cpu/checks.h"
#include "cpu/direct_conv2d/plan.h"
#include "cpu/panels.h"
#include "cpu/tensors.h"
#include "cpu/threads.h"
#include "cpu/window.h"

namespace leanmark::direct_conv2d {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Sizes = std::array<int64_t, 4>;

constexpr int64_t kPixelsAtOnce = 48, kPanelsAtOnce = 8;  // of an item: windows and weights for a core's own cache

Kernel kernel() {
#if defined(__x86_64__)
  if (capability() >= Capability::kAvx512) return kernel_avx512();
  if (capability() >= Capability::kAvx2) return kernel_avx2();
#endif
  return kernel_portable();
}

// The Python entry explains mistakes; these keep a direct call through torch.ops from reading stray memory.
void check(const Tensor& input, const Tensor& weight, const std::optional<Tensor>& bias, int64_t out_channels,
           const Window& w) {
  STD_TORCH_CHECK(input.scalar_type() == ScalarType::Float && input.dim() == 4,
                  "direct_conv2d: input must be float32 and [N, C, H, W]");
  STD_TORCH_CHECK(w.fits(input.size(2), 0) && w.fits(input.size(3), 1),
                  "direct_conv2d: the padded input must be at least as large as the window");
  STD_TORCH_CHECK(weight.scalar_type() == ScalarType::Float && weight.dim() == 3 && out_channels >= 1 &&
                      weight.size(0) == divide_up(out_channels, kPanelWidth) && weight.size(2) == kPanelWidth &&
                      weight.size(1) == input.size(1) * w.taps(),
                  "direct_conv2d: weight must be float32 and packed for out_channels and for its window");
  check_bias("direct_conv2d", bias, out_channels);
}

// One row of an image whose channels lie apart.
template <int kChannels>
void interleave(const float* from, int64_t plane, int64_t width, float* __restrict to) {
  for (int64_t x = 0; x < width; ++x) {
    for (int c = 0; c < kChannels; ++c) to[x * kChannels + c] = from[x + c * plane];
  }
}

// The pixels of one row, channels together.
void copy_row(const Tensor& input, const float* from, float* to) {
  const int64_t channels = input.size(1), width = input.size(3), plane = input.stride(1), pixel = input.stride(3);
  if (plane == 1 && pixel == channels) {
    std::memcpy(to, from, width * channels * sizeof(float));
    return;
  }
  if (pixel == 1 && channels == 3) return interleave<3>(from, plane, width, to);  // as images come
  for (int64_t x = 0; x < width; ++x) {
    for (int64_t c = 0; c < channels; ++c) *to++ = from[x * pixel + c * plane];
  }
}

// NHWC, in a frame of zeros, from any layout.
Tensor framed(const Tensor& input, const Window& w) {
  if (w.padding[0] == 0 && w.padding[1] == 0 && is_channels_last(input)) return input;
  const int64_t channels = input.size(1), height = input.size(2), width = input.size(3);
  const int64_t rows = w.padded(height, 0), row_floats = w.padded(width, 1) * channels;
  const int64_t border = w.padding[1] * channels;
  const Tensor frame = allocate_channels_last({input.size(0), channels, rows, w.padded(width, 1)});
  const float* from = input.const_data_ptr<float>();
  float* to = frame.mutable_data_ptr<float>();
  const int64_t image = input.stride(0), line = input.stride(2);
  const auto fill = [&](int64_t row) {
    const int64_t y = row % rows - w.padding[0];
    float* const begin = to + row * row_floats;
    if (y < 0 || y >= height) {
      std::fill_n(begin, row_floats, 0.0f);
      return;
    }
    std::fill_n(begin, border, 0.0f);
    copy_row(input, from + row / rows * image + y * line, begin + border);
    std::fill_n(begin + row_floats - border, border, 0.0f);
  };
  const Work work{double(frame.numel()) * sizeof(float), 0};
  parallel_for(input.size(0) * rows, work, [&](int64_t begin, int64_t end, int64_t) {
    for (int64_t row = begin; row < end; ++row) fill(row);
  });
  return frame;
}

// Outputs in rows of `width`, the last of which may be shorter, over `height` rows to an image.
struct Grid {
  int64_t pixels, height, width;
  int64_t image_floats, row_floats;  // of input, from one image or row to the next

  int64_t rows() const { return divide_up(pixels, width); }
};

Grid grid_of(const Tensor& x, const Window& w, const Sizes& shape) {
  const int64_t channels = x.size(1), pixels = shape[0] * shape[2] * shape[3];
  if (w.taps() * w.stride[0] * w.stride[1] == 1) {  // no row ends anywhere
    const int64_t rows = divide_up(pixels, kPixelsAtOnce), width = divide_up(pixels, rows);
    return {pixels, rows, width, 0, width * channels};
  }
  const int64_t row = x.size(3) * channels;
  return {pixels, shape[2], shape[3], x.size(2) * row, w.stride[0] * row};
}

void run(const Plan& p, const Grid& grid, const Pixels& all) {
  const int64_t panels = divide_up(p.out_channels, kPanelWidth), groups = divide_up(panels, kPanelsAtOnce);
  const Kernel chosen = kernel();
  const auto item = [&](int64_t index) {
    const int64_t row = index / groups, group = index % groups, first = row * grid.width;
    const int64_t from = row / grid.height * grid.image_floats + row % grid.height * grid.row_floats;
    const int64_t to = first * p.out_channels;
    const Pixels pixels{all.input + from, all.residual ? all.residual + to : nullptr, all.output + to,
                        std::min(grid.width, grid.pixels - first)};
    chosen(p, pixels, group * kPanelsAtOnce, std::min(panels, (group + 1) * kPanelsAtOnce));
  };
  const double weights = double(panels) * kPanelWidth * p.kernel_height * p.depth;
  const Work work{weights * sizeof(float), weights * grid.pixels};
  parallel_for(grid.rows() * groups, work, [&](int64_t begin, int64_t end, int64_t) {
    for (int64_t index = begin; index < end; ++index) item(index);
  });
}

Tensor direct_conv2d(const Tensor& input, const Tensor& weight, const std::optional<Tensor>& bias,
                     const std::optional<Tensor>& residual, int64_t out_channels,
                     const std::vector<int64_t>& numbers, int64_t activation) {
  const Window window = window_of("direct_conv2d", numbers, false);
  check(input, weight, bias, out_channels, window);
  const Range kept = range_of(activation, "direct_conv2d");
  const Sizes shape{input.size(0), out_channels, window.output(input.size(2), 0), window.output(input.size(3), 1)};
  check_residual("direct_conv2d", residual, shape);
  const Tensor y = allocate_channels_last(shape);
  if (shape[0] == 0) return y;

  const Tensor x = framed(input, window), w = row_major(weight);
  const std::optional<Tensor> b = row_major(bias), r = channels_last(residual);
  const int64_t channels = x.size(1);
  const Plan plan{w.const_data_ptr<float>(), values_or_null(b), out_channels, window.size[0],
                  window.size[1] * channels, x.size(3) * channels, window.stride[1] * channels, kept};
  run(plan, grid_of(x, window, shape),
      {x.const_data_ptr<float>(), values_or_null(r), y.mutable_data_ptr<float>(), 0});
  return y;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(leanmark, CPU, m) { m.impl("direct_conv2d", TORCH_BOX(&direct_conv2d)); }

}  // namespace leanmark::direct_conv2d
