// One exact 8-bit convolution by Winograd's F(4x4, 3x3), and how its output tiles are cut into blocks.
//
// Every transform is of integers: inputs grow to 16 bits, weights to 14, so that 16-bit operands will do. Their sums
// are taken modulo 2^32, in which 900 times the convolution determines it; see transforms.h.
#pragma once

#include <cstdint>

#include "cpu/capability.h"
#include "cpu/int8_winograd/transforms.h"

namespace leanmark::int8_winograd {

constexpr int64_t kPoints = kIn * kIn;
constexpr int64_t kMostChannels = 1820;  // 4 * 9 * 255 * 128 * 1820 still fits 32 bits
constexpr int64_t kTileStep = 4;         // tiles that one product takes
constexpr int64_t kLanes = 32;           // channels that one step of a transform takes at most
constexpr int64_t kChunk = 64;           // and one item of it

struct Plan {
  const void* input;          // [batch, height, width, in_channels] of int8 or, if is_unsigned, uint8
  const int16_t* weight;      // [kPoints, panels, depth / 2, kPanelWidth, 2], transformed
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
  int64_t in_stride, out_stride;              // values from one transformed tile to the next
  int64_t in_point_stride, out_point_stride;  // values from one point to the next
};

// Consecutive tiles, and the scratch memory that holds them between the phases, with room for whole kTileSteps.
struct Block {
  int64_t first, tiles;
  int16_t* inputs;   // [kPoints, tiles, in_stride], points in_point_stride apart
  int32_t* outputs;  // [kPoints, tiles, out_stride], points out_point_stride apart
};

// The three phases of a block. Items [begin, end) may be shared out over threads; a phase needs all of the one
// before.
using Phase = void (*)(const Plan&, const Block&, int64_t begin, int64_t end);

struct Phases {
  Phase transform_inputs;   // items: tiles x chunks of input channels
  Phase multiply;           // items: points x panels
  Phase transform_outputs;  // items: tiles x chunks of output channels
};

const Phases& phases_portable();
#if defined(__x86_64__)
const Phases& phases_avx2();
const Phases& phases_avx512vnni();
#endif

}  // namespace leanmark::int8_winograd
