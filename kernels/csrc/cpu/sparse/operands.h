// What both sparse operators do with torch's tensors.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <optional>

#include "cpu/sparse/plan.h"

namespace leanmark::sparse {

// Packed weights as a caller gives them, row-major.
struct PackedWeights {
  torch::stable::Tensor values, indices, starts;
  // The Python entry explains mistakes; this keeps a direct call through torch.ops from reading stray memory.
  Weights checked(const char* name, int64_t rows, int64_t channels, int64_t taps) const;
};

const Kernel& kernel(int64_t block);

// For offsets that are too large for the other one.
const Kernel& kernel_of_far_offsets(int64_t block);

// Cuts the columns into tiles, for which all of the grid but its slices is known. Returns whether the kernel can hold
// the offsets.
bool cut(Plan& plan, const Kernel& kernel);

// Computes a whole plan, on torch's threads where that gains.
void run(const Plan& plan, Tiles work);

}  // namespace leanmark::sparse
