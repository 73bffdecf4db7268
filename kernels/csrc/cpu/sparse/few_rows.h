// Few rows of input times sparse weights, for vectors that can permute: what is read is little more than the
// entries themselves.
//
// Sixteen outputs are summed in the lanes of a vector. A step holds at most one entry of each, all of them within
// a window of 16 inputs: values, spread out over their lanes by a mask, meet inputs that a permutation of the
// window picks for each lane. A greedy choice of windows keeps most lanes busy.
#pragma once

#include <algorithm>

#include "cpu/sparse/few_rows_plan.h"
#include "cpu/vector.h"

namespace leanmark::sparse {

constexpr int64_t kAheadSteps = 160, kAheadValues = 640;  // to prefetch: about 50 steps' worth of both

// What one group of outputs has.
struct Group {
  const uint16_t *step, *end;
  const float* value;
};

// Whatever a caller's tensor holds, no memory but its own is read: a group that asks for more values than there are
// counts as empty. Where outputs are masked, only groups near the end of the values need a look at their masks.
template <int kBlock>
inline Group group_of(const FewRows& p, int64_t index) {
  constexpr int64_t kSize = kStepSize<kBlock>;
  const int32_t* at = p.starts + 2 * index;
  const int64_t first = std::clamp<int64_t>(at[0], 0, p.steps_count);
  const int64_t last = std::clamp<int64_t>(at[2], first, p.steps_count);
  const int64_t value = std::clamp<int64_t>(at[1], 0, p.values_count);
  Group g{p.steps + first * kSize, p.steps + last * kSize, p.values + value};
  int64_t left = p.values_count - value;
  if ((last - first) * kWindow <= left) return g;
  if constexpr (kBlock == 1) {
    for (const uint16_t* s = g.step; s < g.end; s += kSize) left -= __builtin_popcount(*s);
    if (left >= 0) return g;
  }
  g.end = g.step;
  return g;
}

template <class Isa, int kBlock, int kRows>
LEANMARK_TARGET LEANMARK_OUTLINE void add_steps(const FewRows& p, const Group& group, int64_t row, float* to) {
  constexpr int kSize = kStepSize<kBlock>;
  // Sums that are too few to hide the latency of an addition are kept several times.
  constexpr int kChains = kRows * Isa::kVectors >= 4 ? 1 : 4 / (kRows * Isa::kVectors);
  const float *x = p.input + row * p.stride, *value = group.value;
  const int64_t stride = p.stride, last_window = p.stride - kWindow;
  const uint16_t *step = group.step, *end = group.end;
  typename Isa::Sum sums[kChains][kRows] = {};
  const auto add = [&](typename Isa::Sum* sum) LEANMARK_TARGET __attribute__((always_inline)) {
    typename Isa::Entries entries;
    const float* window = x;
    if constexpr (kBlock == 1) {
      uint32_t head;  // loads are scarce: one for both numbers
      std::memcpy(&head, step, sizeof(head));
      asm("" : "+r"(head));
      const uint32_t mask = head & 0xffff;
      window += std::min<int64_t>(head >> 16, last_window);
      entries = Isa::masked(mask, step + 2, value);
      value += __builtin_popcount(mask);
    } else {
      window += std::min<int64_t>(step[0], last_window);
      entries = Isa::blocks(step, value);
      value += kWindow;
    }
    step += kSize;
    #pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) Isa::add(entries, window + r * stride, sum[r]);
  };
  while (step + 4 * kSize <= end) {
    __builtin_prefetch(step + kAheadSteps * kSize);
    #pragma GCC unroll 4
    for (int i = 0; i < 3; ++i) __builtin_prefetch(value + kAheadValues + i * kWindow);
    #pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) add(sums[i % kChains]);
  }
  while (step < end) add(sums[0]);
  #pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    #pragma GCC unroll 4
    for (int c = 1; c < kChains; ++c) sums[0][r] += sums[c][r];
    sums[0][r].store_to(to + r * kWindow);
  }
}

// At most kRows rows, which share the reading of the entries.
template <class Isa, int kBlock, int kRows>
LEANMARK_INLINE void add_rows(const FewRows& p, const Group& group, int64_t row, int64_t rows, float* to) {
  if constexpr (kRows > 1) {
    if (rows < kRows) return add_rows<Isa, kBlock, kRows - 1>(p, group, row, rows, to);
  }
  add_steps<Isa, kBlock, kRows>(p, group, row, to);
}

// Bias, residual and ReLU for `count` outputs from `column` on.
inline void finish_group(const FewRows& p, int64_t row, int64_t column, int64_t count, const float* sums) {
  const int64_t at = row * p.columns + column;
  for (int64_t i = 0; i < count; ++i) {
    float value = sums[i] + (p.bias ? p.bias[column + i] : 0.0f);
    if (p.residual) value += p.residual[at + i];
    p.output[at + i] = p.relu && value < 0.0f ? 0.0f : value;
  }
}

template <class Isa, int kBlock>
LEANMARK_INLINE void few_rows(const FewRows& p, int64_t begin, int64_t end) {
  alignas(64) float sums[Isa::kMostRows * kWindow];
  for (int64_t index = begin; index < end; ++index) {
    const Group group = group_of<kBlock>(p, index);
    const int64_t column = index * kWindow, count = std::min(kWindow, p.columns - column);
    for (int64_t row = 0; row < p.rows; row += Isa::kMostRows) {
      const int64_t rows = std::min<int64_t>(Isa::kMostRows, p.rows - row);
      add_rows<Isa, kBlock, Isa::kMostRows>(p, group, row, rows, sums);
      for (int64_t r = 0; r < rows; ++r) finish_group(p, row + r, column, count, sums + r * kWindow);
    }
  }
}

}  // namespace leanmark::sparse
