// What to ask memory for while panels are multiplied, several of them side by side.
#pragma once

#include <cstdint>

namespace leanmark {

// How far ahead of byte `at` of every one of these panels, `stride` bytes long. Behind their ends lie the panels that
// come next, and not the neighbour that is multiplied now.
inline int64_t ahead_of(int64_t at, int64_t stride, int panels) {
  constexpr int64_t kAheadBytes = 4096;  // what it takes to hide memory; the caches would do with a quarter
  return at + kAheadBytes < stride ? kAheadBytes : kAheadBytes + (panels - 1) * stride;
}

}  // namespace leanmark
