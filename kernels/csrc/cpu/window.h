// Windows over images.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <vector>

#include "cpu/tensors.h"

namespace leanmark {

// For height and width.
struct Window {
  int64_t size[2], stride[2], padding[2], dilation[2];

  int64_t taps() const { return size[0] * size[1]; }
  int64_t reach(int axis) const { return dilation[axis] * (size[axis] - 1) + 1; }
  int64_t padded(int64_t length, int axis) const { return length + 2 * padding[axis]; }
  bool fits(int64_t length, int axis) const { return padded(length, axis) >= reach(axis); }
  int64_t output(int64_t length, int axis) const { return (padded(length, axis) - reach(axis)) / stride[axis] + 1; }
};

// What an operator is called with: size, stride, padding and, if it is `dilated`, dilation. They are one list, since
// torch takes as long to hand over an empty one as sixteen numbers in it.
inline Window window_of(const char* name, const std::vector<int64_t>& numbers, bool dilated) {
  STD_TORCH_CHECK(numbers.size() == (dilated ? 8 : 6), name, ": window must hold ", dilated ? 4 : 3,
                  " pairs: kernel_size, stride, padding", dilated ? ", dilation" : "");
  const int64_t* n = numbers.data();
  const Window w{{n[0], n[1]}, {n[2], n[3]}, {n[4], n[5]}, {dilated ? n[6] : 1, dilated ? n[7] : 1}};
  for (int axis = 0; axis < 2; ++axis) {
    for (int64_t value : {w.size[axis] - 1, w.stride[axis] - 1, w.padding[axis], w.dilation[axis] - 1}) {
      STD_TORCH_CHECK(value >= 0 && value <= kLargest, name,
                      ": kernel_size, stride and dilation must be 1 to 1048575, padding must be 0 to 1048575");
    }
  }
  return w;
}

}  // namespace leanmark
