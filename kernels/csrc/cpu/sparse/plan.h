// One product with sparse weights: which entries there are, and how the columns of the input are cut into tiles.
//
// Every output row is a sum of entries times stretches of input that lie contiguous in memory ("offset SpMM"):
// for a convolution the columns are the positions of a grid over one image, so that a tap of the filter is an
// offset into the grid; for a linear layer they are the rows of its input, transposed.
#pragma once

#include <cstdint>

#include "cpu/capability.h"

namespace leanmark::sparse {

// An index is a byte, so a slab has at most this many pairs of channel and tap: its tile is about what L1 holds.
constexpr int64_t kIndices = 256;
// Floats that may be written behind a tile.
constexpr int64_t kSlack = 16;

struct Weights {
  const float* values;     // [entries, block]
  const uint8_t* indices;  // [entries]: the channel within its slab, times taps, plus the tap
  const int32_t* starts;   // [slabs * groups + 1]: the first entry of each group of rows, slab by slab
  int64_t entries, block;  // block: rows of a group, which share the places of their entries
  int64_t rows, groups, channels, slabs, slab_channels;
};

// The image, the filter's steps, and the grid of output positions with room for the filter's width.
// Phases are the remainders of input positions by the stride, each with a plane of its own; in a shifted grid,
// columns of the filter have each their own, so that no column of the grid is there for the filter's width alone.
struct Grid {
  int64_t height, width;
  int64_t out_height, out_width, grid_width;
  int64_t stride[2], padding[2];
  bool shifted;
  int64_t phases, phase[kIndices][2];
  int64_t taps, tap_phase[kIndices], tap_offset[kIndices];  // where in its phase a tap begins
  int64_t halo;   // floats that the taps read beyond a tile
  int64_t slice;  // floats of one phase of one channel of a tile
};

struct Plan {
  Weights weights;
  const float* input;     // [images, channels, height, width], or [columns, channels]
  const float* bias;      // [rows], or null
  const float* residual;  // as output, or null
  float* output;          // [images, rows, out_height, out_width], or [columns, rows]
  bool relu;
  Grid grid;                     // of a convolution
  int32_t offsets[kIndices];     // floats from the start of a slab's tile to an index's column 0
  const int32_t* found;          // [entries]: the offsets of their indices, or null
  int64_t pitch;                 // floats of one channel of a tile
  int64_t images, columns;       // columns: of one image
  int64_t tile, tiles, shares;   // columns of a tile; tiles of an image; items that share one tile's rows
  int64_t slab_step;  // floats from the tile of one slab to that of the next, or 0 if it takes its place
  const float* input_end;
};

inline int64_t packed_floats(const Plan& p) {
  return (p.weights.slabs - 1) * p.slab_step + p.weights.slab_channels * p.pitch + kSlack;
}

inline int64_t scratch_floats(const Plan& p) {
  const int64_t groups = (p.weights.groups + p.shares - 1) / p.shares;
  return packed_floats(p) + (groups * p.weights.block + 1) * p.tile + kSlack;
}

// What a thread has to itself.
struct Worker {
  float* scratch;
  int64_t held = -1;  // the tile that is laid out there, of all slabs
};

// Items [begin, end), which are tiles or shares of them.
using Tiles = void (*)(const Plan&, int64_t begin, int64_t end, Worker& worker);

// An image [pixels, channels] as [channels, pixels].
using Planes = void (*)(const float* from, int64_t pixels, int64_t channels, float* to);

struct Kernel {
  Tiles linear, convolution;
  Planes planes;
  int64_t lanes, widest;  // columns of a tile: a multiple of lanes, at most widest, or twice that with a halo that
                          // is copied once or that blocks share
  int64_t most_offset;
};

Kernel kernel_portable(int64_t block);
#if defined(__x86_64__)
Kernel kernel_avx2(int64_t block);
Kernel kernel_avx512(int64_t block);
#endif

}  // namespace leanmark::sparse
