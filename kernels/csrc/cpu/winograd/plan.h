// One Winograd convolution: its tensors, and how its output tiles are cut into blocks that fit a cache.
//
// Winograd's minimal filtering (Lavin and Gray, CVPR 2016): the output is cut into squares of `m` pixels. With
// the (m + 2)^2 input pixels under each one transformed, and the weights transformed once, a convolution is
// one matrix product per point of the transformed square, and a transform back.
#pragma once

#include <cstdint>

#include "cpu/capability.h"
#include "cpu/panels.h"

namespace leanmark::winograd {

// Where transformed tiles lie: [points][tiles][channels], or with several tiles together
// [tiles / together][channels / kPanelWidth][points][together][kPanelWidth].
struct Layout {
  int64_t together, group;        // tiles, and floats from these to the next ones
  int64_t tile, channels, point;  // floats from one to the next, for channels from kPanelWidth of them

  int64_t at(int64_t index, int64_t channel) const {
    return index / together * group + index % together * tile + channel / kPanelWidth * channels +
           channel % kPanelWidth;
  }
};

struct Plan {
  const float* input;     // [batch, height, width, in_channels]
  const float* weight;    // [weights, panels, depth, kPanelWidth]; as stored [panels, depth, 3, 3, kPanelWidth]
  const float* bias;      // [out_channels], or null
  const float* residual;  // as output, or null
  float* output;          // [batch, out_height, out_width, out_channels]
  int64_t height, width, in_channels;
  int64_t out_height, out_width, out_channels;
  int64_t depth;  // channels that are multiplied: in_channels without those that fill up vectors
  int64_t padding;
  bool relu;
  const uint8_t* first;  // point that meets each of the weights

  int64_t tiles_high, tiles_wide, tiles;  // tiles: of all images
  int64_t panels;
  Layout inputs, outputs;  // of a block
};

// Consecutive tiles, and the scratch memory that holds them between the phases.
struct Block {
  int64_t first, tiles;
  float* inputs;   // both as the plan lays them out
  float* outputs;
};

constexpr int64_t kChunk = 64;  // channels that one item of a transform covers

enum class Form {
  kF2,          // F(2x2, 3x3)
  kF4,          // F(4x4, 3x3)
  kF4AsStored,  // F(4x4, 3x3), on weights that are not transformed
  kStride2,     // 3x3 at stride 2, 2x2 outputs
  kF3,          // F(3x3, 4x4): 7x7 at stride 2, on the four pixels of each square of 2x2 as channels
};

// The three phases of a block. Items [begin, end) may be shared out over threads; a phase needs all of the one
// before.
using Phase = void (*)(const Plan&, const Block&, int64_t begin, int64_t end);

struct Phases {
  Phase transform_inputs;   // items: tiles x chunks of input channels, the tiles in whole groups
  Phase multiply;           // items: weights x groups of panels; as stored: panels
  Phase transform_outputs;  // items: tiles x chunks of output channels; null where multiply does it
  int panels_at_once, tiles_together;
};

const Phases& phases_portable(Form form);
#if defined(__x86_64__)
const Phases& phases_avx2(Form form);
const Phases& phases_avx512(Form form);
#endif

}  // namespace leanmark::winograd
