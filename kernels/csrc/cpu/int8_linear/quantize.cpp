#include "cpu/int8_linear/quantize.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <tuple>
#include <vector>

#include "cpu/capability.h"
#include "cpu/tensors.h"
#include "cpu/threads.h"
#include "cpu/vector.h"

namespace leanmark::int8_linear {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

constexpr int64_t kPiece = 1 << 13;  // values that one item of the work covers
constexpr uint32_t kInfinityBits = 0x7f800000u;
constexpr float kSmallest = 0x1p-119f;  // below it, 127 / largest would overflow
constexpr float kRounder = 0x1.8p23f;   // added to a small number, it leaves its nearest integer in the low bits

// The bits of the largest magnitude; those of NaN come last.
LEANMARK_INLINE uint32_t largest_of(const float* from, int64_t count) {
  uint32_t largest = 0;
  for (int64_t i = 0; i < count; ++i) {
    uint32_t bits;
    std::memcpy(&bits, from + i, sizeof(bits));
    largest = std::max(largest, bits & 0x7fffffffu);
  }
  return largest;
}

LEANMARK_INLINE void round_all(const float* from, int64_t count, float inverse, int offset, int8_t* to) {
  for (int64_t i = 0; i < count; ++i) {
    const float shifted = from[i] * inverse + kRounder;
    uint32_t bits;
    std::memcpy(&bits, &shifted, sizeof(bits));
    to[i] = static_cast<int8_t>(bits + offset);
  }
}

struct Steps {
  uint32_t (*largest)(const float*, int64_t);
  void (*round)(const float*, int64_t, float, int offset, int8_t*);
};

uint32_t largest_portable(const float* from, int64_t count) { return largest_of(from, count); }

void round_portable(const float* from, int64_t count, float inverse, int offset, int8_t* to) {
  round_all(from, count, inverse, offset, to);
}

#if defined(__x86_64__)
// Without FMA: the product is rounded before it becomes an integer, as in the reference.
__attribute__((target("avx2"))) uint32_t largest_avx2(const float* from, int64_t count) {
  return largest_of(from, count);
}

__attribute__((target("avx2"))) void round_avx2(const float* from, int64_t count, float inverse, int offset, int8_t* to) {
  round_all(from, count, inverse, offset, to);
}
#endif

Steps steps() {
#if defined(__x86_64__)
  if (capability() >= Capability::kAvx2) return {largest_avx2, round_avx2};
#endif
  return {largest_portable, round_portable};
}

struct Factors {
  float scale, inverse;
  Factors(uint32_t largest_bits, float most) : scale(1.0f), inverse(0.0f) {
    float largest;
    std::memcpy(&largest, &largest_bits, sizeof(largest));
    if (largest_bits >= kInfinityBits) {
      scale = std::numeric_limits<float>::quiet_NaN();
    } else if (largest >= kSmallest) {
      scale = largest / most;
      inverse = most / largest;
    }
  }
};

// A piece of a row.
struct Piece {
  int64_t row, first, count;
  Piece(const Rows& r, int64_t pieces, int64_t item)
      : row(item / pieces), first(item % pieces * kPiece), count(std::min(kPiece, r.depth - first)) {}
};

std::tuple<Tensor, Tensor> quantize_int8(const Tensor& input, int64_t bits) {
  STD_TORCH_CHECK(input.scalar_type() == ScalarType::Float && input.dim() == 2,
                  "quantize_int8: input must be float32 and [R, K]");
  STD_TORCH_CHECK(bits == 7 || bits == 8, "quantize_int8: bits must be 7 or 8");
  const Tensor x = row_major(input);
  const int64_t rows = x.size(0), depth = x.size(1);
  const Tensor values = allocate_row_major({rows, depth}, aoti_torch_dtype_int8());
  const Tensor scale = allocate_row_major({rows});
  quantize({x.const_data_ptr<float>(), rows, depth, bits, 0, values.mutable_data_ptr<int8_t>(), depth, depth,
            scale.mutable_data_ptr<float>()});
  return {values, scale};
}

}  // namespace

void quantize(const Rows& r) {
  const Steps step = steps();
  const float most = float((1 << (r.bits - 1)) - 1);
  const auto take_scale = [&](int64_t row, uint32_t largest) {
    const Factors factors(largest, most);
    r.scales[row] = factors.scale;
    return factors.inverse;
  };
  const auto round = [&](const Piece& piece, float inverse) {
    if (r.depth == 0) return;
    int8_t* to = r.values + piece.row * r.stride + piece.first;
    if (inverse == 0.0f) {
      std::memset(to, r.offset, piece.count);  // not finite times 0 is NaN, which has no integer
    } else {
      step.round(r.from + piece.row * r.depth + piece.first, piece.count, inverse, r.offset, to);
    }
    if (piece.first + piece.count == r.depth) std::memset(to + piece.count, 0, r.filled - r.depth);
  };

  const int64_t pieces = std::max<int64_t>(1, divide_up(r.depth, kPiece));
  const Work reading{double(r.rows) * r.depth * sizeof(float), 0};
  if (pieces == 1) {
    parallel_for(r.rows, reading, [&](int64_t begin, int64_t end, int64_t) {
      for (int64_t row = begin; row < end; ++row) {
        round({r, 1, row}, take_scale(row, step.largest(r.from + row * r.depth, r.depth)));
      }
    });
    return;
  }
  std::vector<uint32_t> largest(r.rows * pieces);
  parallel_for(r.rows * pieces, reading, [&](int64_t begin, int64_t end, int64_t) {
    for (int64_t item = begin; item < end; ++item) {
      const Piece piece(r, pieces, item);
      largest[item] = step.largest(r.from + piece.row * r.depth + piece.first, piece.count);
    }
  });
  std::vector<float> inverse(r.rows);
  for (int64_t row = 0; row < r.rows; ++row) {
    const auto* of_row = largest.data() + row * pieces;
    inverse[row] = take_scale(row, *std::max_element(of_row, of_row + pieces));
  }
  parallel_for(r.rows * pieces, reading, [&](int64_t begin, int64_t end, int64_t) {
    for (int64_t item = begin; item < end; ++item) {
      const Piece piece(r, pieces, item);
      round(piece, inverse[piece.row]);
    }
  });
}

STABLE_TORCH_LIBRARY_IMPL(leanmark, CPU, m) { m.impl("quantize_int8", TORCH_BOX(&quantize_int8)); }

}  // namespace leanmark::int8_linear
