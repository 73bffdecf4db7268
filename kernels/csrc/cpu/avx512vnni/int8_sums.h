// Sums of products by VNNI: each step takes four bytes of a row, four 8-bit values or two of 16 bits, and a line of
// 64 bytes of a panel, which holds as much for each of 16 columns.
#pragma once

#define LEANMARK_TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")))

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "cpu/avx512vnni/prefetch.h"
#include "cpu/panels.h"
#include "cpu/vector.h"

namespace leanmark {

// Assembly, since GCC 12 copies the sums that it gives to an intrinsic.
struct Bytes {  // unsigned rows, signed weights
  LEANMARK_TARGET static LEANMARK_INLINE void add(__m512i& sums, const __m512i& x, const __m512i& w) {
    asm("vpdpbusd %2, %1, %0" : "+v"(sums) : "v"(x), "v"(w));
  }
};

struct Words {  // both signed
  LEANMARK_TARGET static LEANMARK_INLINE void add(__m512i& sums, const __m512i& x, const __m512i& w) {
    asm("vpdpwssd %2, %1, %0" : "+v"(sums) : "v"(x), "v"(w));
  }
};

template <class Values, int kRows, int kPanels>
struct Int8Sums {
  static constexpr int64_t kLine = 64;
  // Sums of different depths, where one for each output would leave the multipliers waiting for one another.
  static constexpr int kTimes = kRows * kPanels >= 8 ? 1 : kRows * kPanels >= 4 ? 2 : kRows * kPanels >= 2 ? 4 : 8;

  __m512i sums[kTimes][kRows][kPanels];

  // Rows lie row_bytes apart, panels panel_bytes. The result is sums[0].
  LEANMARK_TARGET LEANMARK_INLINE void add_all(const void* rows, int64_t row_bytes, const void* panels,
                                               int64_t panel_bytes, int64_t steps) {
    #pragma GCC unroll 8
    for (int u = 0; u < kTimes; ++u) {
      #pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        #pragma GCC unroll 4
        for (int v = 0; v < kPanels; ++v) sums[u][r][v] = _mm512_setzero_si512();
      }
    }
    const auto* x = static_cast<const char*>(rows);
    const auto* w = static_cast<const char*>(panels);
    int64_t k = 0;
    const auto ahead = [&] { return ahead_of(k * kLine, panel_bytes, kPanels); };
    for (; k + kTimes <= steps; k += kTimes) step<kTimes>(x + 4 * k, row_bytes, w + k * kLine, panel_bytes, ahead());
    for (; k < steps; ++k) step<1>(x + 4 * k, row_bytes, w + k * kLine, panel_bytes, ahead());
    #pragma GCC unroll 8
    for (int u = 1; u < kTimes; ++u) {
      #pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        #pragma GCC unroll 4
        for (int v = 0; v < kPanels; ++v) sums[0][r][v] = _mm512_add_epi32(sums[0][r][v], sums[u][r][v]);
      }
    }
  }

 private:
  template <int kSteps>
  LEANMARK_TARGET LEANMARK_INLINE void step(const char* x, int64_t row_bytes, const char* w, int64_t panel_bytes,
                                            int64_t ahead) {
    #pragma GCC unroll 8
    for (int u = 0; u < kSteps; ++u) {
      __m512i line[kPanels];
      #pragma GCC unroll 4
      for (int v = 0; v < kPanels; ++v) {
        const char* at = w + v * panel_bytes + u * kLine;
        line[v] = _mm512_loadu_si512(at);
        if (kRows <= 4) _mm_prefetch(at + ahead, _MM_HINT_T0);  // few rows: bound by reading the weights
      }
      #pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        int32_t four;
        std::memcpy(&four, x + r * row_bytes + 4 * u, sizeof(four));
        const __m512i values = _mm512_set1_epi32(four);
        #pragma GCC unroll 4
        for (int v = 0; v < kPanels; ++v) Values::add(sums[u][r][v], values, line[v]);
      }
    }
  }
};

}  // namespace leanmark
