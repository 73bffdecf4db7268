#include "cpu/activation.h"

#include <torch/csrc/stable/tensor.h>

#include <limits>
#include <string>

namespace leanmark {

Range range_of(int64_t activation, const char* name) {
  STD_TORCH_CHECK(activation >= 0 && activation <= 2,
                  std::string(name) + ": activation must be 0 (none), 1 (ReLU) or 2 (ReLU6)");
  const float infinity = std::numeric_limits<float>::infinity();
  return {activation == 0 ? -infinity : 0.0f, activation == 2 ? 6.0f : infinity};
}

}  // namespace leanmark
