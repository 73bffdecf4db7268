// The columns of a convolution: grid positions of one image, laid out for the taps, and back into planes.
#pragma once

#include <algorithm>
#include <limits>
#include <vector>

#include "cpu/sparse/plan.h"
#include "cpu/vector.h"

namespace leanmark::sparse {

// `count` floats: on the grid's side they lie together, on the other a step apart.
struct Run {
  int64_t from, to, count;
};

// What every channel of a tile reads of its plane, and what every row of it writes to its plane.
struct Runs {
  std::vector<Run> in, out;
  int64_t out_end;  // behind the tile's last output
};

// Rows that meet on both sides become one run.
inline void add_run(const Run& run, int64_t step, std::vector<Run>& runs) {
  Run* last = runs.empty() ? nullptr : &runs.back();
  if (last && last->from + last->count * step == run.from && last->to + last->count == run.to) {
    last->count += run.count;
  } else {
    runs.push_back(run);
  }
}

// What `count` positions of a grid's row, from column `first` of the input on, read of the input's row `y`.
inline void add_input_run(const Grid& g, int64_t y, int64_t first, int64_t count, int64_t to, std::vector<Run>& in) {
  const int64_t step = g.stride[1];
  const int64_t before = first < 0 ? std::min(count, (step - 1 - first) / step) : 0;
  const int64_t inside = first < g.width ? std::min(count, (g.width - first + step - 1) / step) : 0;
  if (y < 0 || inside <= before) return;
  add_run({y * g.width + first + before * step, to + before, inside - before}, step, in);
}

inline void find_runs(const Plan& p, int64_t tile, Runs& runs) {
  const Grid& g = p.grid;
  const int64_t first = tile * p.tile, size = p.tile + g.halo, last = std::min(p.columns, first + p.tile);
  const int64_t first_row = first / g.grid_width, first_column = first % g.grid_width;
  runs.in.clear();
  for (int64_t phase = 0; phase < g.phases; ++phase) {
    int64_t y = first_row * g.stride[0] + g.phase[phase][0] - g.padding[0], column = first_column;
    for (int64_t at = 0; at < size && y < g.height; y += g.stride[0], column = 0) {
      const int64_t count = std::min(g.grid_width - column, size - at);
      const int64_t x = column * g.stride[1] + g.phase[phase][1] - g.padding[1];
      add_input_run(g, y, x, count, phase * g.slice + at, runs.in);
      at += count;
    }
  }
  runs.out.clear();
  int64_t y = first_row, column = first_column;
  for (int64_t at = first; at < last; ++y, column = 0) {
    const int64_t count = std::min(g.out_width - column, last - at), to = y * g.out_width + column;
    if (count > 0) add_run({at - first, to, count}, 1, runs.out);
    at += g.grid_width - column;
  }
  runs.out_end = runs.out.empty() ? 0 : runs.out.back().to + runs.out.back().count;
}

// What ReLU raises outputs to.
LEANMARK_INLINE float floor_of(const Plan& p) { return p.relu ? 0.0f : -std::numeric_limits<float>::infinity(); }

// Lane numbers, to compare with a count.
template <int kLanes>
LEANMARK_INLINE Vector<kLanes, int32_t> lane_numbers() {
  Vector<kLanes, int32_t> numbers;
  #pragma GCC unroll 16
  for (int lane = 0; lane < kLanes; ++lane) numbers[lane] = lane;
  return numbers;
}

// `count` floats, and zeros up to a whole vector behind them.
template <int kLanes>
LEANMARK_INLINE void copy_run(const float* from, int64_t count, const float* end, float* to) {
  using V = Vector<kLanes>;
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) store(load<V>(from + i), to + i);
  if (i == count) return;
  if (from + i + kLanes > end) return store(load_first<V>(from + i, count - i), to + i);
  const auto bits = load<Vector<kLanes, int32_t>>(from + i);
  store(bits & (lane_numbers<kLanes>() < int32_t(count - i)), to + i);
}

// The tile of one slab, [channels, phases, slice]. What no run covers is zero already.
template <int kLanes>
LEANMARK_TARGET LEANMARK_OUTLINE void pack_convolution(const Plan& p, const Runs& runs, int64_t image,
                                                       int64_t channel, int64_t channels, float* to) {
  const int64_t plane = p.grid.height * p.grid.width, step = p.grid.stride[1], pitch = p.pitch;
  const float* from = p.input + (image * p.weights.channels + channel) * plane;
  const float* end = p.input_end;
  const Run *begin = runs.in.data(), *last = begin + runs.in.size();
  for (int64_t c = 0; c < channels; ++c, from += plane, to += pitch) {
    for (const Run* run = begin; run != last; ++run) {
      if (step == 1) {
        copy_run<kLanes>(from + run->from, run->count, end, to + run->to);
      } else {
        for (int64_t i = 0; i < run->count; ++i) to[run->to + i] = from[run->from + i * step];
      }
    }
  }
}

// Bias, residual and ReLU for the `count` sums of one run. Up to `room` outputs may be written: what is too much,
// the next run overwrites.
template <int kLanes, bool kResidual>
LEANMARK_INLINE void finish_run(const float* sums, float bias, const float* residual, float floor, float* output,
                                int64_t count, int64_t room) {
  using V = Vector<kLanes>;
  const V lowest = V{} + floor;
  const auto finished = [&](V value, V other) __attribute__((always_inline)) {
    value += bias;
    if constexpr (kResidual) value += other;
    return value < lowest ? lowest : value;
  };
  const int64_t whole = std::min(count + kLanes - 1, room) & -kLanes;
  for (int64_t i = 0; i < whole; i += kLanes) {
    store(finished(load<V>(sums + i), kResidual ? load<V>(residual + i) : V{}), output + i);
  }
  const int64_t rest = count - whole;
  if (rest <= 0) return;
  const V other = kResidual ? load_first<V>(residual + whole, rest) : V{};
  store_first(finished(load<V>(sums + whole), other), output + whole, rest);
}

// Rows of sums over a tile to their planes of the output.
template <int kLanes>
LEANMARK_TARGET LEANMARK_OUTLINE void finish_convolution(const Plan& p, const Runs& runs, int64_t image,
                                                         int64_t row, int64_t rows, const float* sums) {
  const float floor = floor_of(p);
  const int64_t end = runs.out_end, tile = p.tile, area = p.grid.out_height * p.grid.out_width;
  const Run *first = runs.out.data(), *last = first + runs.out.size();
  for (int64_t r = row; r < row + rows; ++r, sums += tile) {
    const int64_t plane = (image * p.weights.rows + r) * area;
    const float bias = p.bias ? p.bias[r] : 0.0f;
    float* output = p.output + plane;
    const float* residual = p.residual ? p.residual + plane : nullptr;
    for (const Run* run = first; run != last; ++run) {
      const float* from = sums + run->from;
      float* to = output + run->to;
      if (residual) {
        finish_run<kLanes, true>(from, bias, residual + run->to, floor, to, run->count, end - run->to);
      } else {
        finish_run<kLanes, false>(from, bias, nullptr, floor, to, run->count, end - run->to);
      }
    }
  }
}

}  // namespace leanmark::sparse
