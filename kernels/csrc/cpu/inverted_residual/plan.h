// One inverted residual: its tensors, and the rows of it that are computed together.
#pragma once

#include <cstdint>

#include "cpu/capability.h"

namespace leanmark::inverted_residual {

// Hidden channels that are expanded and filtered together, so that what lies between stays in a core's L1 cache.
constexpr int64_t kChunk = 32;

struct Plan {
  const float* input;                   // [batch, height, width, in_channels]
  const float *expand, *expand_bias;    // [panels of hidden, in_channels, kPanelWidth]; [hidden]; or null
  const float *filter, *filter_bias;    // [9, hidden]; [hidden], or null
  const float *project, *project_bias;  // [panels of out_channels, hidden, kPanelWidth]; [out_channels], or null
  float* output;                        // [batch, out_height, out_width, out_channels]
  int64_t batch, height, width, in_channels, hidden;
  int64_t out_height, out_width, out_channels, stride;
  bool residual;

  int64_t tile;             // output rows computed together
  int64_t kept;             // expanded rows that they are computed from
  int64_t chunk_floats;     // from one chunk's expanded rows to the next; 0 where no tile needs those of another
  int64_t filtered_stride;  // floats from one filtered pixel to the next

  // An expanded row has a pixel of zeros before and behind it.
  int64_t row_floats() const { return (width + 2) * kChunk; }
};

// Output rows [first, last) of an image. Expanded rows are kept in a ring, since the next tile needs some again.
struct Tile {
  int64_t image, first, last;
  int64_t expanded;     // the first row that the ring does not hold yet
  float* ring;          // [chunks, kept, width + 2, kChunk]
  const float* nothing;  // an expanded row of zeros
  float* filtered;      // [rows, out_width, filtered_stride]

  int64_t pixels(const Plan& p) const { return (last - first) * p.out_width; }
};

// Items [begin, end) may be shared out over threads; the second phase needs all of the first.
using Phase = void (*)(const Plan&, const Tile&, int64_t begin, int64_t end);

struct Phases {
  Phase expand_and_filter;  // items: chunks of hidden channels
  Phase project;            // items: groups of panels x rows of pixels
  int rows_at_once, panels_at_once;
};

const Phases& phases_portable();
#if defined(__x86_64__)
const Phases& phases_avx2();
const Phases& phases_avx512();
#endif

}  // namespace leanmark::inverted_residual
