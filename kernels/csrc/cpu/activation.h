// Where an activation keeps outputs.
#pragma once

#include <cstdint>

namespace leanmark {

// Outputs are kept between them.
struct Range {
  float low, high;
};

// Of ReLU, ReLU6 or nothing (1, 2, 0), for the operator `name`.
Range range_of(int64_t activation, const char* name);

}  // namespace leanmark
