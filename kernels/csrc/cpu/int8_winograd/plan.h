// One exact 8-bit convolution by Winograd's F(4x4, 3x3), and how its output tiles are cut into blocks.
//
// Every transform is of integers: inputs grow to 16 bits, weights to 14, so that 16-bit operands will do. Their sums
// are taken modulo 2^32, in which 900 times the convolution determines it, see transforms.h, and in which it does not
// matter that a sum is made in parts, one for each chunk of input channels.
#pragma once

#include <cstdint>

#include "cpu/capability.h"
#include "cpu/int8_winograd/transforms.h"
#include "cpu/panels.h"

namespace leanmark::int8_winograd {

constexpr int64_t kPoints = kIn * kIn, kWeights = kTaps * kTaps;
constexpr int64_t kMostChannels = 1820;  // 4 * 9 * 255 * 128 * 1820 still fits 32 bits
constexpr int64_t kTileStep = 4;         // tiles that one product takes
constexpr int64_t kLanes = 32;           // channels that one step of a transform takes at most
constexpr int64_t kChunk = 64;           // and one item of it

constexpr int64_t kGroup = 2;                         // panels that are multiplied at once
constexpr int64_t kPairs = 32;                        // and pairs of input channels at most
constexpr int64_t kPairWidth = 2 * kPanelWidth;       // values of such a pair in a panel
constexpr int64_t kOutStride = kGroup * kPanelWidth;  // sums from one tile to the next
// From one point to the next, with a cache line more, or they would fall into few sets of the cache.
constexpr int64_t kWeightStride = kGroup * kPairs * kPairWidth + 32;

struct Plan {
  const void* input;          // [batch, height, width, in_channels] of int8 or, if is_unsigned, uint8
  const int8_t* weight;       // [panels, depth / 2, kWeights, kPanelWidth, 2]
  const float* scale;         // [out_channels]
  const float* input_scale;   // [batch], input_scale_step 1, or one value, input_scale_step 0
  int64_t input_scale_step;
  const float* bias;          // [out_channels], or null
  const float* residual;      // as output, or null
  float* output;              // [batch, out_height, out_width, out_channels]
  int64_t height, width, in_channels;
  int64_t out_height, out_width, out_channels;
  int64_t padding, zero_point;
  bool is_unsigned, relu;

  int64_t tiles_high, tiles_wide, tiles;      // tiles: of all images
  int64_t panels, depth;                      // depth: in_channels, filled up to a multiple of 4
  int64_t in_stride;                          // values from one transformed tile to the next
  int64_t in_point_stride, out_point_stride;  // values from one point to the next
  int64_t slices, slice_tiles;                // of a block, for items of the second phase
};

// Consecutive tiles, and the scratch memory that holds them between the phases, with room for whole kTileSteps.
struct Block {
  int64_t first, tiles;
  int16_t* inputs;   // [kPoints, tiles, in_stride], points in_point_stride apart
  // of each worker alone:
  int16_t* weights;  // [kIn, kGroup, kPairs, kPairWidth], points kWeightStride apart
  int32_t* outputs;  // [kPoints, slice_tiles, kOutStride], points out_point_stride apart
};

// What is multiplied at once: panels of weights for pairs of input channels, and tiles of a block.
struct Part {
  int64_t panel, panels, tile, tiles, pair, pairs;
};

// Of one point, for kTileSteps of tiles: to = from + x * w. Sums wrap around, those of a point may.
struct Product {
  const int16_t* x;  // [tiles, 2 * pairs], rows x_stride apart
  int64_t x_stride;
  const int16_t* w;  // [panels, pairs, kPairWidth], panels kPairs * kPairWidth apart
  int64_t pairs, panels, tiles;
  const int32_t* from;  // as `to`, but rows from_stride apart
  int64_t from_stride;
  int32_t* to;  // [tiles, panels * kPanelWidth], rows kOutStride apart
};

// The two phases of a block. Items [begin, end) may be shared out over threads; the second needs all of the first.
using Phase = void (*)(const Plan&, const Block&, int64_t begin, int64_t end);

struct Phases {
  Phase transform_inputs;  // items: tiles x chunks of input channels
  Phase multiply;          // items: groups of panels x slices of tiles
};

const Phases& phases_portable();
#if defined(__x86_64__)
const Phases& phases_avx2();
const Phases& phases_avx512vnni();
#endif

}  // namespace leanmark::int8_winograd
