// Vectors of kLanes floats, as the compiler's own type: one source for every instruction set.
//
// A file in portable/, avx2/ or avx512/ defines LEANMARK_TARGET, the attribute that names its instruction set,
// and then includes the kernels. What is LEANMARK_INLINE becomes part of a function with that attribute, and no
// function compiled for a newer CPU can be linked into the portable path, since the templates differ in kLanes.
#pragma once

#include <cstdint>
#include <cstring>

#define LEANMARK_INLINE __attribute__((always_inline)) inline

// For the innermost loops: alone in a function, they get the registers to themselves.
#define LEANMARK_OUTLINE __attribute__((noinline))

// Vectors are passed only between functions that are inlined, so their calling convention is of no matter.
#pragma GCC diagnostic ignored "-Wpsabi"

namespace leanmark {

template <int kLanes, class Element = float>
struct VectorOf {
  typedef Element type __attribute__((vector_size(kLanes * sizeof(Element))));
};

template <int kLanes, class Element = float>
using Vector = typename VectorOf<kLanes, Element>::type;

template <class V, class Element>
LEANMARK_INLINE V load(const Element* from) {
  V vector;
  std::memcpy(&vector, from, sizeof(V));
  return vector;
}

template <class V, class Element>
LEANMARK_INLINE void store(const V& vector, Element* to) {
  std::memcpy(to, &vector, sizeof(V));
}

// The first `count` lanes; the others are zero and their memory is not touched.
template <class V>
LEANMARK_INLINE V load_first(const float* from, int64_t count) {
  V vector = {};
  std::memcpy(&vector, from, count * sizeof(float));
  return vector;
}

template <class V>
LEANMARK_INLINE void store_first(const V& vector, float* to, int64_t count) {
  std::memcpy(to, &vector, count * sizeof(float));
}

// Keeps NaN, as torch does.
template <class V>
LEANMARK_INLINE V relu(const V& vector) {
  return vector < V{} ? V{} : vector;
}

// Keeps NaN, too.
template <class V>
LEANMARK_INLINE V clamp(V value, float low, float high) {
  const V lowest = V{} + low, highest = V{} + high;
  value = value < lowest ? lowest : value;
  return value > highest ? highest : value;
}

}  // namespace leanmark
