// Rows of floats as 8-bit integers, each row with a scale of its own.
#pragma once

#include <cstdint>

namespace leanmark::int8_linear {

// `offset` is added to every integer, modulo 256. Rows of integers lie `stride` apart and are filled up with zeros
// to `filled`.
struct Rows {
  const float* from;
  int64_t rows, depth, bits;
  int offset;
  int8_t* values;
  int64_t stride, filled;
  float* scales;   // [rows]
};

void quantize(const Rows& rows);

}  // namespace leanmark::int8_linear
