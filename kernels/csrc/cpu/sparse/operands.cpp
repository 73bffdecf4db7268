#include "cpu/sparse/operands.h"

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <string>
#include <vector>

#include "cpu/tensors.h"
#include "cpu/threads.h"

namespace leanmark::sparse {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

constexpr int64_t kItemsPerThread = 8;  // so that whoever is there first has something to take over
constexpr int64_t kLeastRows = 16;      // of an item
constexpr int64_t kLine = 16;           // floats

}  // namespace

Weights PackedWeights::checked(const char* name, int64_t rows, int64_t channels, int64_t taps) const {
  const std::string who = name;
  STD_TORCH_CHECK(values.scalar_type() == ScalarType::Float && values.dim() == 2 &&
                      (values.size(1) == 1 || values.size(1) == 4),
                  who + ": values must be float32 and [entries, 1 or 4]");
  STD_TORCH_CHECK(indices.scalar_type() == ScalarType::Byte && indices.dim() == 1 &&
                      indices.size(0) == values.size(0),
                  who + ": indices must be uint8 and [entries]");
  STD_TORCH_CHECK(rows > 0 && channels > 0 && taps > 0 && taps <= kIndices,
                  who + ": rows, channels and taps must be at least 1, and taps at most 256");
  const int64_t block = values.size(1), slab_channels = kIndices / taps;
  const int64_t groups = divide_up(rows, block), slabs = divide_up(channels, slab_channels);
  STD_TORCH_CHECK(starts.scalar_type() == ScalarType::Int && starts.dim() == 1 &&
                      starts.size(0) == groups * slabs + 1,
                  who + ": starts must be int32, one for each group of rows in each slab, and one");
  return {values.const_data_ptr<float>(), indices.const_data_ptr<uint8_t>(), starts.const_data_ptr<int32_t>(),
          values.size(0), block, rows, groups, channels, slabs, slab_channels};
}

const Kernel& kernel(int64_t block) {
#if defined(__x86_64__)
  static const Kernel kernels[2] = {kernel_avx512(1), kernel_avx512(4)};
  if (capability() >= Capability::kAvx512) return kernels[block == 4];
#endif
  return kernel_of_far_offsets(block);
}

const Kernel& kernel_of_far_offsets(int64_t block) {
#if defined(__x86_64__)
  static const Kernel kernels[2] = {kernel_avx2(1), kernel_avx2(4)};
  if (capability() >= Capability::kAvx2) return kernels[block == 4];
#endif
  static const Kernel portable[2] = {kernel_portable(1), kernel_portable(4)};
  return portable[block == 4];
}

bool cut(Plan& plan, const Kernel& kernel) {
  // Linear layers are transposed by eights.
  const int64_t multiple = std::max<int64_t>(8, kernel.lanes);
  const bool wide = plan.grid.halo > 0 && (plan.weights.block > 1 || !plan.grid.shifted);
  const int64_t tiles = divide_up(plan.columns, wide ? 2 * kernel.widest : kernel.widest);
  plan.tile = divide_up(divide_up(plan.columns, tiles), multiple) * multiple;
  plan.tiles = divide_up(plan.columns, plan.tile);
  Grid& grid = plan.grid;
  grid.slice = divide_up(plan.tile + grid.halo, kLine) * kLine;
  plan.pitch = grid.phases * grid.slice;
  int64_t most_offset = 0;
  // What is not the index of a channel's tap stays 0, so that no entry reads outside of the tile.
  for (int64_t channel = 0; channel < plan.weights.slab_channels; ++channel) {
    for (int64_t tap = 0; tap < grid.taps; ++tap) {
      const int64_t offset = channel * plan.pitch + grid.tap_phase[tap] * grid.slice + grid.tap_offset[tap];
      plan.offsets[channel * grid.taps + tap] = int32_t(offset);
      most_offset = std::max(most_offset, offset);
    }
  }
  return most_offset <= kernel.most_offset;
}

void run(const Plan& planned, Tiles work) {
  Plan plan = planned;
  const Weights& w = plan.weights;
  const int64_t threads = torch::stable::get_num_threads(), tiles = plan.images * plan.tiles;
  // Few tiles: threads share the rows of each, and lay all of it out when they come to the first of their shares.
  const int64_t most_shares = threads > 1 ? divide_up(w.rows, kLeastRows) : 1;
  plan.shares = std::min(divide_up(kItemsPerThread * threads, tiles), most_shares);
  plan.slab_step = plan.shares > 1 ? divide_up(w.slab_channels * plan.pitch, kLine) * kLine : 0;
  const int64_t floats = divide_up(scratch_floats(plan), kLine) * kLine;
  // One look-up takes less than two of those that the sums would wait for; AVX-512 has its own.
  const bool looked_up = tiles > 2 * threads && kernel(w.block).lanes < 16;
  const Tensor scratch = allocate_row_major({threads * floats + (looked_up ? w.entries : 0)});
  if (looked_up) {
    int32_t* found = reinterpret_cast<int32_t*>(scratch.mutable_data_ptr<float>() + threads * floats);
    for (int64_t i = 0; i < w.entries; ++i) found[i] = plan.offsets[w.indices[i]];
    plan.found = found;
  }
  std::vector<Worker> workers(threads);
  for (int64_t i = 0; i < threads; ++i) workers[i].scratch = scratch.mutable_data_ptr<float>() + i * floats;
  const double entries = double(w.entries * w.block);
  const leanmark::Work all{entries * sizeof(float) + double(w.entries), entries * double(plan.images * plan.columns)};
  parallel_for(tiles * plan.shares, all, [&](int64_t begin, int64_t end, int64_t worker) {
    work(plan, begin, end, workers[worker]);
  });
}

}  // namespace leanmark::sparse
