// The operator: 1x1 expansion, depthwise 3x3 and 1x1 projection (Sandler et al., MobileNetV2, CVPR 2018), a few
// rows of the image at a time, so that what lies between the three never leaves a core's own cache.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "cpu/checks.h"
#include "cpu/inverted_residual/plan.h"
#include "cpu/items.h"
#include "cpu/panels.h"
#include "cpu/tensors.h"

namespace leanmark::inverted_residual {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// Floats of a chunk's expanded rows: what an L1 cache of 48 KiB holds beside weights and inputs.
constexpr int64_t kRingFloats = 8 * 1024;

const Phases& phases() {
#if defined(__x86_64__)
  if (capability() >= Capability::kAvx512) return phases_avx512();
  if (capability() >= Capability::kAvx2) return phases_avx2();
#endif
  return phases_portable();
}

struct Schedule {
  const Plan& plan;
  const Phases& phases;
  int64_t shares;  // of an image

  int64_t chunks() const { return divide_up(plan.hidden, kChunk); }
  int64_t outputs(const Tile& t) const {
    const int64_t panels = divide_up(plan.out_channels, kPanelWidth);
    return divide_up(t.pixels(plan), phases.rows_at_once) * divide_up(panels, phases.panels_at_once);
  }

  // Scratch memory: one thread's ring and row of zeros, and filtered pixels.
  int64_t ring_floats() const {
    const int64_t rings = plan.chunk_floats == 0 ? 1 : chunks();
    return (rings * plan.kept + 1) * plan.row_floats();
  }
  int64_t filtered_floats() const { return plan.tile * plan.out_width * plan.filtered_stride; }

  Tile tile(int64_t image, int64_t first, int64_t last, float* ring, float* filtered) const {
    const int64_t expanded = std::max<int64_t>(0, first * plan.stride - 1);
    return {image, first, last, expanded, ring, ring + ring_floats() - plan.row_floats(), filtered};
  }
};

// The pixels of zeros around the rows, which stay so.
void clear_borders(const Schedule& s, float* ring) {
  const int64_t row = s.plan.row_floats(), rows = s.ring_floats() / row - 1;
  for (int64_t i = 0; i < rows; ++i) {
    std::fill_n(ring + i * row, kChunk, 0.0f);
    std::fill_n(ring + (i + 1) * row - kChunk, kChunk, 0.0f);
  }
  std::fill_n(ring + rows * row, row, 0.0f);
}

// Every thread takes shares of the images, rows that lie together; neighbours expand the rows between them twice.
void run_shares(const Schedule& s, int64_t workers, float* scratch) {
  Items items(s.plan.batch * s.shares);
  torch::stable::parallel_for(0, workers, 1, [&](int64_t worker, int64_t) {
    float* ring = scratch + worker * (s.ring_floats() + s.filtered_floats());
    clear_borders(s, ring);
    items.take_singly([&](int64_t item) {
      const int64_t share = item % s.shares, height = s.plan.out_height;
      const int64_t end = height * (share + 1) / s.shares;
      Tile t = s.tile(item / s.shares, height * share / s.shares, end, ring, ring + s.ring_floats());
      for (int64_t row = t.first; row < end; row += s.plan.tile) {
        t.first = row;
        t.last = std::min(end, row + s.plan.tile);
        s.phases.expand_and_filter(s.plan, t, 0, s.chunks());
        s.phases.project(s.plan, t, 0, s.outputs(t));
        t.expanded = std::min(s.plan.height, (t.last - 1) * s.plan.stride + 2);
      }
    });
  });
}

// Small images: all threads work on one, each on chunks of its channels.
void run_chunks(const Schedule& s, int64_t workers, float* scratch) {
  std::vector<Items> items;
  items.reserve(2 * s.plan.batch);
  float* filtered = scratch + workers * s.ring_floats();
  for (int64_t image = 0; image < s.plan.batch; ++image) {
    items.emplace_back(s.chunks());
    items.emplace_back(s.outputs(s.tile(image, 0, s.plan.out_height, scratch, filtered)));
  }
  torch::stable::parallel_for(0, workers, 1, [&](int64_t worker, int64_t) {
    float* ring = scratch + worker * s.ring_floats();
    clear_borders(s, ring);
    for (int64_t image = 0; image < s.plan.batch; ++image) {
      const Tile t = s.tile(image, 0, s.plan.out_height, ring, filtered);
      items[2 * image].take_and_wait(workers, [&](int64_t begin, int64_t end) {
        s.phases.expand_and_filter(s.plan, t, begin, end);
      });
      items[2 * image + 1].take_and_wait(workers, [&](int64_t begin, int64_t end) {
        s.phases.project(s.plan, t, begin, end);
      });
    }
  });
}

void run(Plan& p) {
  const int64_t threads = torch::stable::get_num_threads();
  const int64_t least = p.stride == 1 ? 4 : 3;  // two output rows that share their input
  const int64_t kept = std::max<int64_t>(least, kRingFloats / p.row_floats());
  const int64_t most = (kept - 3) / p.stride + 1;
  const bool alone = p.batch % threads == 0, small = most >= p.out_height;
  const int64_t shares = alone || small ? 1 : std::min(threads, p.out_height);
  const int64_t rows = divide_up(p.out_height, shares);
  p.tile = divide_up(rows, divide_up(rows, most));  // of even size
  p.kept = (p.tile - 1) * p.stride + 3;
  p.chunk_floats = p.tile == rows ? 0 : p.kept * p.row_floats();
  // One cache line more, or the pixels would fall into few sets of the cache.
  p.filtered_stride = divide_up(p.hidden, kPanelWidth) * kPanelWidth + kPanelWidth;

  const Schedule schedule{p, phases(), shares};
  const int64_t workers = std::min(threads, small && !alone ? schedule.chunks() : p.batch * shares);
  const int64_t floats = workers * (schedule.ring_floats() + schedule.filtered_floats());
  const Tensor scratch = allocate_row_major({floats});
  const auto run_all = small && !alone ? run_chunks : run_shares;
  run_all(schedule, workers, scratch.mutable_data_ptr<float>());
}

// The Python entry explains mistakes; these keep a direct call through torch.ops from reading stray memory.
void check_panels(const Tensor& weight, int64_t columns, int64_t depth, const char* name) {
  STD_TORCH_CHECK(weight.scalar_type() == ScalarType::Float && weight.dim() == 3 && weight.size(1) == depth &&
                      weight.size(2) == kPanelWidth && weight.size(0) == divide_up(columns, kPanelWidth),
                  std::string("inverted_residual: ") + name + " must be float32 and packed for its channels");
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

Tensor inverted_residual(const Tensor& input, const std::optional<Tensor>& expand,
                         const std::optional<Tensor>& expand_bias,
                         const Tensor& filter, const std::optional<Tensor>& filter_bias, const Tensor& project,
                         const std::optional<Tensor>& project_bias, int64_t out_channels, int64_t stride,
                         bool residual) {
  check(input, filter, out_channels, stride, residual);
  const int64_t batch = input.size(0), channels = input.size(1), height = input.size(2), width = input.size(3);
  const int64_t hidden = filter.size(1);
  if (expand) {
    check_panels(*expand, hidden, channels, "expand");
  } else {
    STD_TORCH_CHECK(hidden == channels && !expand_bias,
                    "inverted_residual: without expand, there must be as many hidden channels as inputs");
  }
  check_panels(project, out_channels, hidden, "project");
  check_bias("inverted_residual", expand_bias, hidden);
  check_bias("inverted_residual", filter_bias, hidden);
  check_bias("inverted_residual", project_bias, out_channels);

  const Tensor x = channels_last(input), f = row_major(filter), p = row_major(project);
  const std::optional<Tensor> e = row_major(expand);
  const std::optional<Tensor> eb = row_major(expand_bias), fb = row_major(filter_bias), pb = row_major(project_bias);
  const int64_t out_height = (height - 1) / stride + 1, out_width = (width - 1) / stride + 1;
  const Tensor y = allocate_channels_last({batch, out_channels, out_height, out_width});
  if (batch == 0) return y;
  Plan plan{};
  plan.input = x.const_data_ptr<float>();
  plan.expand = values_or_null(e);
  plan.expand_bias = values_or_null(eb);
  plan.filter = f.const_data_ptr<float>();
  plan.filter_bias = values_or_null(fb);
  plan.project = p.const_data_ptr<float>();
  plan.project_bias = values_or_null(pb);
  plan.output = y.mutable_data_ptr<float>();
  plan.batch = batch;
  plan.height = height;
  plan.width = width;
  plan.in_channels = channels;
  plan.hidden = hidden;
  plan.out_height = out_height;
  plan.out_width = out_width;
  plan.out_channels = out_channels;
  plan.stride = stride;
  plan.residual = residual;
  run(plan);
  return y;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(leanmark, CPU, m) { m.impl("inverted_residual", TORCH_BOX(&inverted_residual)); }

}  // namespace leanmark::inverted_residual
