#include "cpu/int8_linear/run.h"

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cstring>

#include "cpu/checks.h"
#include "cpu/int8_linear/quantize.h"
#include "cpu/panels.h"
#include "cpu/tensors.h"
#include "cpu/threads.h"

namespace leanmark::int8_linear {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

constexpr int64_t kLine = 64;
constexpr int kZeroPoint = 128;  // of rows that are rounded here: unsigned, which the fastest products take

const Kernel& kernel() {
#if defined(__x86_64__)
  if (capability() >= Capability::kAvx512Vnni) return kernel_avx512vnni();
  if (capability() >= Capability::kAvx2) return kernel_avx2();
#endif
  return kernel_portable();
}

// On the stack where it is small: with one row, a tensor costs a twentieth of the product.
class Memory {
 public:
  explicit Memory(int64_t bytes) : at(small_) {
    if (bytes <= int64_t(sizeof(small_))) return;
    tensor_ = allocate_bytes(bytes);
    at = reinterpret_cast<char*>(tensor_->mutable_data_ptr<uint8_t>());
  }
  Memory(const Memory&) = delete;

  char* at;

 private:
  std::optional<Tensor> tensor_;
  alignas(64) char small_[8192];
};

void read_limits(Plan& plan) {
  for (int64_t panel = 0; panel < plan.panels; ++panel) {
    Footer footer;
    std::memcpy(&footer, plan.weight + panel * plan.panel_bytes + plan.padded_depth * kPanelWidth, sizeof(footer));
    plan.largest_pair = std::max<int64_t>(plan.largest_pair, footer.pair);
    plan.largest_quad = std::max<int64_t>(plan.largest_quad, footer.quad);
  }
}

void lay_out(Plan& plan, const Kernel& chosen) {
  plan.padded_depth = divide_up(plan.depth, kDepthStep) * kDepthStep;
  plan.panels = panels_for(plan.columns);
  plan.panel_bytes = panel_bytes_for(plan.depth);
  if (chosen.by_limits) read_limits(plan);
  const int64_t fewest = divide_up(plan.rows, chosen.most_rows);
  plan.tile_rows = chosen.by_limits ? chosen.most_rows : divide_up(plan.rows, fewest);
  plan.tiles = divide_up(plan.rows, plan.tile_rows);
  // A cache line more, or rows would fall into few sets of the cache; room for 16 bits where tiles choose.
  const int64_t value_bytes = chosen.by_limits ? 2 : 1;
  plan.row_bytes = divide_up(plan.padded_depth * value_bytes, kLine) * kLine + kLine;
  plan.tile_bytes = (chosen.by_limits ? int64_t(sizeof(Header)) : 0) + plan.tile_rows * plan.row_bytes;
  plan.block_tiles = std::clamp<int64_t>(chosen.block_bytes / plan.tile_bytes, 1, plan.tiles);
}

int64_t groups_of(const Plan& plan, const Kernel& chosen) { return divide_up(plan.panels, chosen.item_panels); }

Work products_of(const Plan& plan) {
  const double weights = double(plan.panels) * plan.panel_bytes;
  return {weights, weights * plan.rows};
}

void multiply(const Plan& plan, const Kernel& chosen) {
  const int64_t items = divide_up(plan.tiles, plan.block_tiles) * groups_of(plan, chosen);
  parallel_for(items, products_of(plan), [&](int64_t begin, int64_t end, int64_t) {
    chosen.multiply(plan, begin, end);
  });
}

// Many rows: every thread takes whole blocks, and what it packs stays in its own cache.
void run_blocks(const Plan& plan, const Kernel& chosen, int64_t workers) {
  const int64_t groups = groups_of(plan, chosen), bytes = plan.block_tiles * plan.tile_bytes;
  const Memory memory(workers * bytes);
  const int64_t blocks = divide_up(plan.tiles, plan.block_tiles);
  parallel_for(blocks, products_of(plan), [&](int64_t begin, int64_t end, int64_t worker) {
    Plan mine = plan;
    mine.scratch = memory.at + worker * bytes;
    for (int64_t block = begin; block < end; ++block) {
      mine.first_tile = block * plan.block_tiles;
      chosen.pack(mine, mine.first_tile, std::min(plan.tiles, mine.first_tile + plan.block_tiles));
      chosen.multiply(mine, block * groups, (block + 1) * groups);
    }
  });
}

void run(Plan& plan, const Kernel& chosen) {
  const int64_t workers = torch::stable::get_num_threads();
  if (divide_up(plan.tiles, plan.block_tiles) >= 2 * workers) return run_blocks(plan, chosen, workers);
  const Memory memory(plan.tiles * plan.tile_bytes);
  plan.scratch = memory.at;
  parallel_for(plan.tiles, {double(plan.rows) * plan.depth, 0}, [&](int64_t begin, int64_t end, int64_t) {
    chosen.pack(plan, begin, end);
  });
  multiply(plan, chosen);
}

}  // namespace

int64_t panels_for(int64_t columns) { return divide_up(columns, kPanelWidth); }

int64_t panel_bytes_for(int64_t depth) {
  return divide_up(depth, kDepthStep) * kDepthStep * kPanelWidth + int64_t(sizeof(Footer));
}

void check_layer(const char* name, const Tensor& scale, const std::optional<Tensor>& bias, int64_t depth,
                 int64_t columns) {
  STD_TORCH_CHECK(depth <= kDeepest, name, ": K must be at most 65536");
  STD_TORCH_CHECK(is_vector(scale, columns), name, ": scale must be float32 and have a value for each output");
  check_bias(name, bias, columns);
  constexpr uint32_t kExponent = 0x7f800000u;
  const Tensor values = row_major(scale);
  const float* from = values.const_data_ptr<float>();
  uint32_t bad = 0;
  for (int64_t i = 0; i < columns; ++i) {
    uint32_t bits;
    std::memcpy(&bits, from + i, sizeof(bits));
    bad |= (bits & kExponent) == kExponent;
  }
  STD_TORCH_CHECK(!bad, name, ": scale must be finite");
}

void run(Plan& plan) {
  const Kernel& chosen = kernel();
  lay_out(plan, chosen);
  run(plan, chosen);
}

void run_dynamic(Plan& plan, const float* from, int64_t bits) {
  const Kernel& chosen = kernel();
  lay_out(plan, chosen);
  plan.is_unsigned = true;
  plan.zero_point = kZeroPoint;
  plan.rows_per_scale = 1;
  const int64_t stride = chosen.by_limits ? plan.depth : plan.row_bytes;
  const int64_t scales_at = divide_up(plan.rows * stride, kLine) * kLine;
  const Memory memory(scales_at + plan.rows * int64_t(sizeof(float)));
  float* scales = reinterpret_cast<float*>(memory.at + scales_at);
  plan.input_scale = scales;
  auto* values = reinterpret_cast<int8_t*>(memory.at);
  const int64_t filled = chosen.by_limits ? plan.depth : plan.padded_depth;
  quantize({from, plan.rows, plan.depth, bits, kZeroPoint, values, stride, filled, scales});
  plan.input = memory.at;
  plan.scratch = memory.at;
  chosen.by_limits ? run(plan, chosen) : multiply(plan, chosen);
}

}  // namespace leanmark::int8_linear
