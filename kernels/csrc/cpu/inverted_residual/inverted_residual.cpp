// The operator: 1x1 expansion, depthwise 3x3 and 1x1 projection (Sandler et al., MobileNetV2, CVPR 2018), a few
// rows of the image at a time, so that what lies between the three never leaves a core's own cache.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <optional>
#include <string>

#include "cpu/depthwise/plan.h"
#include "cpu/packed_linear/plan.h"
#include "cpu/panels.h"
#include "cpu/tensors.h"

namespace leanmark::inverted_residual {
namespace {

using packed_linear::Weights;
using torch::headeronly::MemoryFormat;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// Floats of expanded rows: about what a core's own cache holds beside the weights in use.
constexpr int64_t kTileFloats = 96 * 1024;

struct Block {
  const float *input, *expand, *expand_bias, *project, *project_bias;
  float* output;
  depthwise::Plan filter;
  int64_t batch, height, width, in_channels, out_height, out_channels;
  bool residual;
  int64_t tile;  // output rows

  int64_t hidden() const { return filter.channels; }
  // Rows of the expanded image that a tile reads; they are kept in a ring, since the next tile needs some again.
  int64_t ring() const { return (tile - 1) * filter.stride + 3; }
  int64_t scratch_floats() const { return (ring() * width + tile * filter.out_width) * hidden(); }
};

void multiply(packed_linear::Plan plan) {
  packed_linear::kernel(Weights::kFloat32, plan.rows).run(plan, 0, divide_up(plan.columns, kPanelWidth));
}

// Expanded rows [begin, end) into the ring, as many at once as lie together there.
void expand_rows(const Block& b, const float* image, int64_t begin, int64_t end, float* ring) {
  for (int64_t row = begin; row < end;) {
    const int64_t slot = row % b.ring(), rows = std::min(end - row, b.ring() - slot);
    packed_linear::Plan plan{image + row * b.width * b.in_channels, b.in_channels, b.expand, nullptr, b.expand_bias,
                             ring + slot * b.width * b.hidden(), rows * b.width, b.in_channels, b.hidden(), true};
    plan.most = 6.0f;
    multiply(plan);
    row += rows;
  }
}

// Filtered rows [first, last) of the ring, to rows that lie together.
void filter_rows(const Block& b, const float* ring, int64_t first, int64_t last, float* to) {
  static const depthwise::Kernel run = depthwise::kernel();
  const int64_t stride = b.filter.stride, at_once = depthwise::rows_at_once(stride);
  for (int64_t channel = 0; channel < b.hidden(); channel += depthwise::kChunk) {
    for (int64_t row = first; row < last; row += at_once) {
      depthwise::Rows rows{};
      rows.count = std::min(at_once, last - row);
      for (int64_t i = 0; i < 4; ++i) {
        const int64_t y = row * stride - 1 + i;
        const bool read = y >= 0 && y < b.height && i < (rows.count - 1) * stride + 3;
        rows.input[i] = read ? ring + y % b.ring() * b.width * b.hidden() : nullptr;
      }
      for (int64_t i = 0; i < rows.count; ++i) {
        rows.output[i] = to + (row - first + i) * b.filter.out_width * b.hidden();
      }
      run(b.filter, rows, channel, std::min(b.hidden(), channel + depthwise::kChunk));
    }
  }
}

// Output rows [first, last) of one image.
void run_rows(const Block& b, int64_t index, int64_t first, int64_t last, float* scratch) {
  const float* image = b.input + index * b.height * b.width * b.in_channels;
  float* filtered = scratch + b.ring() * b.width * b.hidden();
  int64_t expanded = std::max<int64_t>(0, first * b.filter.stride - 1);
  for (int64_t row = first; row < last; row += b.tile) {
    const int64_t end = std::min(last, row + b.tile);
    const int64_t needed = std::min(b.height, (end - 1) * b.filter.stride + 2);
    expand_rows(b, image, expanded, needed, scratch);
    expanded = std::max(expanded, needed);
    filter_rows(b, scratch, row, end, filtered);
    const int64_t pixel = (index * b.out_height + row) * b.filter.out_width;
    packed_linear::Plan plan{filtered, b.hidden(), b.project, nullptr, b.project_bias,
                             b.output + pixel * b.out_channels, (end - row) * b.filter.out_width, b.hidden(),
                             b.out_channels, false};
    if (b.residual) plan.residual = b.input + pixel * b.in_channels;
    multiply(plan);
  }
}

void run(Block& b, const Tensor& like) {
  const int64_t per_row = (b.filter.stride * b.width + b.filter.out_width) * b.hidden();
  const int64_t threads = torch::stable::get_num_threads();
  const int64_t shares = b.batch % threads == 0 ? 1 : std::min(threads, b.out_height);
  b.tile = std::clamp<int64_t>(kTileFloats / per_row, 1, divide_up(b.out_height, shares));
  b.tile = divide_up(b.out_height, divide_up(b.out_height, b.tile));  // of even size
  const int64_t items = b.batch * shares, workers = std::min(threads, items);
  const Tensor scratch = torch::stable::new_empty(like, {workers * b.scratch_floats()});
  float* memory = scratch.mutable_data_ptr<float>();
  torch::stable::parallel_for(0, workers, 1, [&](int64_t begin, int64_t end) {
    for (int64_t worker = begin; worker < end; ++worker) {
      for (int64_t item = worker; item < items; item += workers) {
        const int64_t share = item % shares;
        run_rows(b, item / shares, b.out_height * share / shares, b.out_height * (share + 1) / shares,
                 memory + worker * b.scratch_floats());
      }
    }
  });
}

// The Python entry explains mistakes; these keep a direct call through torch.ops from reading stray memory.
void check_panels(const Tensor& weight, int64_t columns, int64_t depth, const char* name) {
  STD_TORCH_CHECK(weight.scalar_type() == ScalarType::Float && weight.dim() == 3 && weight.size(1) == depth &&
                      weight.size(2) == kPanelWidth && weight.size(0) == divide_up(columns, kPanelWidth),
                  std::string("inverted_residual: ") + name + " must be float32 and packed for its channels");
}

void check_bias(const std::optional<Tensor>& bias, int64_t channels) {
  STD_TORCH_CHECK(!bias || (bias->scalar_type() == ScalarType::Float && bias->dim() == 1 &&
                            bias->size(0) == channels),
                  "inverted_residual: biases must be float32, one for each channel");
}

void check(const Tensor& input, const Tensor& filter, int64_t out_channels, int64_t stride, bool residual) {
  STD_TORCH_CHECK(input.scalar_type() == ScalarType::Float && input.dim() == 4 && input.size(1) > 0 &&
                      input.size(2) > 0 && input.size(3) > 0,
                  "inverted_residual: input must be float32 and [N, C, H, W]");
  STD_TORCH_CHECK(filter.scalar_type() == ScalarType::Float && filter.dim() == 2 && filter.size(0) == 9 &&
                      filter.size(1) > 0 && out_channels > 0,
                  "inverted_residual: depthwise must be float32 and [9, hidden]");
  STD_TORCH_CHECK(stride == 1 || stride == 2, "inverted_residual: stride must be 1 or 2");
  STD_TORCH_CHECK(!residual || (stride == 1 && input.size(1) == out_channels),
                  "inverted_residual: residual needs stride 1 and as many outputs as inputs");
}

Tensor inverted_residual(const Tensor& input, const Tensor& expand, const std::optional<Tensor>& expand_bias,
                         const Tensor& filter, const std::optional<Tensor>& filter_bias, const Tensor& project,
                         const std::optional<Tensor>& project_bias, int64_t out_channels, int64_t stride,
                         bool residual) {
  check(input, filter, out_channels, stride, residual);
  const int64_t batch = input.size(0), channels = input.size(1), height = input.size(2), width = input.size(3);
  const int64_t hidden = filter.size(1);
  check_panels(expand, hidden, channels, "expand");
  check_panels(project, out_channels, hidden, "project");
  check_bias(expand_bias, hidden);
  check_bias(filter_bias, hidden);
  check_bias(project_bias, out_channels);

  const Tensor x = channels_last(input), e = row_major(expand), f = row_major(filter), p = row_major(project);
  const std::optional<Tensor> eb = row_major(expand_bias), fb = row_major(filter_bias), pb = row_major(project_bias);
  const int64_t out_height = (height - 1) / stride + 1, out_width = (width - 1) / stride + 1;
  const Tensor y = torch::stable::empty({batch, out_channels, out_height, out_width}, ScalarType::Float,
                                        std::nullopt, std::nullopt, std::nullopt, MemoryFormat::ChannelsLast);
  if (batch == 0) return y;
  Block block{x.const_data_ptr<float>(), e.const_data_ptr<float>(), values_or_null(eb), p.const_data_ptr<float>(),
              values_or_null(pb), y.mutable_data_ptr<float>(),
              {f.const_data_ptr<float>(), values_or_null(fb), hidden, width, out_width, stride, 1, 0.0f, 6.0f},
              batch, height, width, channels, out_height, out_channels, residual, 1};
  run(block, x);
  return y;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(leanmark, CPU, m) { m.impl("inverted_residual", TORCH_BOX(&inverted_residual)); }

}  // namespace leanmark::inverted_residual
