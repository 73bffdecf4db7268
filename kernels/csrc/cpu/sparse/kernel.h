// Tiles of columns, slab by slab.
#pragma once

#include "cpu/sparse/convolution.h"
#include "cpu/sparse/linear.h"
#include "cpu/sparse/rows.h"

namespace leanmark::sparse {

// A tile of an image, and the groups of rows that are computed of it.
struct Item {
  int64_t image, tile, begin, end;
  LEANMARK_INLINE Item(const Plan& p, int64_t index) {
    const int64_t share = index % p.shares, groups = p.weights.groups;
    tile = index / p.shares % p.tiles;
    image = index / p.shares / p.tiles;
    begin = groups * share / p.shares;
    end = groups * (share + 1) / p.shares;
  }
};

template <int kLanes, int kBlock>
LEANMARK_INLINE void convolve(const Plan& p, const Item& item, const Runs& runs, bool held, float* tile, float* sums) {
  const Weights& w = p.weights;
  const int64_t area = p.grid.out_height * p.grid.out_width;
  const bool together = runs.out.size() == 1 && runs.out[0].count == p.tile;
  // A tile counts columns of the grid, whose rows are longer than the output's: its run says where it lies there.
  const int64_t start = item.image * w.rows * area + (together ? runs.out[0].to : 0);
  const float* residual = together && p.residual ? p.residual + start : nullptr;
  Target target{tile, sums, true, nullptr, residual, p.bias, floor_of(p), area};
  for (int64_t slab = 0; slab < w.slabs; ++slab) {
    float* packed = tile + slab * p.slab_step;
    if (!held) {
      const int64_t channel = slab * w.slab_channels;
      const int64_t channels = std::min(w.slab_channels, w.channels - channel);
      if (slab == 0 || p.slab_step > 0) std::memset(packed, 0, (w.slab_channels * p.pitch + kSlack) * sizeof(float));
      pack_convolution<kLanes>(p, runs, item.image, channel, channels, packed);
    }
    target.packed = packed;
    const bool last = slab + 1 == w.slabs;
    target.fresh = slab == 0;
    target.output = last && together ? p.output + start : nullptr;
    for (int64_t group = item.begin; group < item.end; group += kRows / kBlock) {
      const int64_t end = std::min(item.end, group + kRows / kBlock);
      target.sums = sums + (group - item.begin) * kBlock * p.tile;
      add_slab<kLanes, kBlock>(p, target, slab, group, end);
      if (!last || together) continue;
      const int64_t row = group * kBlock, rows = std::min(end * kBlock, w.rows) - row;
      finish_convolution<kLanes>(p, runs, item.image, row, rows, target.sums);
    }
  }
}

template <int kLanes, int kBlock>
LEANMARK_INLINE void multiply(const Plan& p, const Item& item, bool held, float* tile, float* sums) {
  const Weights& w = p.weights;
  for (int64_t slab = 0; slab < w.slabs; ++slab) {
    const int64_t channel = slab * w.slab_channels;
    float* packed = tile + slab * p.slab_step;
    if (!held) pack_linear(p, item.tile, channel, std::min(w.slab_channels, w.channels - channel), packed);
    Target target{packed, sums, slab == 0, nullptr, nullptr, nullptr, 0.0f, 0};
    for (int64_t group = item.begin; group < item.end; group += kRows / kBlock) {
      target.sums = sums + (group - item.begin) * kBlock * p.tile;
      add_slab<kLanes, kBlock>(p, target, slab, group, std::min(item.end, group + kRows / kBlock));
    }
  }
  const int64_t row = item.begin * kBlock, last = std::min(item.end * kBlock, w.rows);
  finish_linear(p, item.tile, row, last - row, sums);
}

template <int kLanes, int kBlock, bool kLinear>
LEANMARK_INLINE void run(const Plan& p, int64_t begin, int64_t end, Worker& worker) {
  float *tile = worker.scratch, *sums = tile + packed_floats(p);
  Runs runs;
  for (int64_t index = begin; index < end; ++index) {
    const Item item(p, index);
    const int64_t number = item.image * p.tiles + item.tile;
    const bool held = number == worker.held;  // only shares of a tile come to a worker that has laid it out
    if constexpr (kLinear) {
      multiply<kLanes, kBlock>(p, item, held, tile, sums);
    } else {
      if (!held || index == begin) find_runs(p, item.tile, runs);
      convolve<kLanes, kBlock>(p, item, runs, held, tile, sums);
    }
    worker.held = number;
  }
}

}  // namespace leanmark::sparse
