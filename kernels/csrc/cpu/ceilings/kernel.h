// What the processor can do at most: multiply-adds and additions in registers, and reading memory. Nothing is
// computed.
#pragma once

#include <cstdint>

#include "cpu/vector.h"

namespace leanmark::ceilings {

constexpr int kChains = 12;  // more than latency times ports of any x86 yet, and with two operands in 16 registers

template <int kLanes>
constexpr int64_t flops_per_step() {
  return 2 * kChains * kLanes;
}

template <int kLanes>
LEANMARK_INLINE float total(const Vector<kLanes>& vector) {
  float sum = 0;
  for (int lane = 0; lane < kLanes; ++lane) sum += vector[lane];
  return sum;
}

template <int kLanes>
LEANMARK_INLINE float multiply_adds(int64_t steps) {
  using V = Vector<kLanes>;
  const V factor = V{} + 0.999f, summand = V{} + 1e-3f;
  V chains[kChains];
  for (int i = 0; i < kChains; ++i) chains[i] = V{} + static_cast<float>(i);
  for (int64_t step = 0; step < steps; ++step) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) chains[i] = chains[i] * factor + summand;
  }
  V sum = {};
  for (int i = 0; i < kChains; ++i) sum += chains[i];
  return total<kLanes>(sum);
}

constexpr int kNumbers = 6, kTurns = 4;

// Of whole numbers, as many at once as a core issues: another user of the same core is noticed, who may leave the
// rate of multiply-adds as it is.
LEANMARK_OUTLINE inline int64_t adds(int64_t steps) {
  int64_t numbers[kNumbers] = {};
  for (int64_t step = 0; step < steps; ++step) {
#pragma GCC unroll 4
    for (int turn = 0; turn < kTurns; ++turn) {
#pragma GCC unroll 6
      for (int i = 0; i < kNumbers; ++i) {
        numbers[i] += i + 1;
        asm("" : "+r"(numbers[i]));  // or the compiler would multiply
      }
    }
  }
  int64_t sum = 0;
  for (int i = 0; i < kNumbers; ++i) sum += numbers[i];
  return sum;
}

template <int kLanes>
LEANMARK_INLINE float read(const float* from, int64_t count) {
  using V = Vector<kLanes>;
  constexpr int kStreams = 8;
  V sums[kStreams] = {};
  int64_t at = 0;
  for (; at + kStreams * kLanes <= count; at += kStreams * kLanes) {
#pragma GCC unroll 8
    for (int i = 0; i < kStreams; ++i) sums[i] += load<V>(from + at + i * kLanes);
  }
  for (int i = 1; i < kStreams; ++i) sums[0] += sums[i];
  float rest = total<kLanes>(sums[0]);
  for (; at < count; ++at) rest += from[at];
  return rest;
}

struct Kernels {
  float (*multiply_adds)(int64_t steps);
  float (*read)(const float* from, int64_t count);
  int64_t flops_per_step;
};

Kernels kernels_portable();
Kernels kernels_avx2();
Kernels kernels_avx512();

}  // namespace leanmark::ceilings
