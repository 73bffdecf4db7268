// The columns of a linear layer: rows of its input, transposed on the way in and on the way out.
#pragma once

#include <algorithm>

#include "cpu/sparse/plan.h"
#include "cpu/vector.h"

namespace leanmark::sparse {

// rows[i][j] becomes rows[j][i]: pairs, then quarters, then halves change places.
LEANMARK_INLINE void transpose(Vector<8>* rows) {
  Vector<8> t[8], u[8];
  #pragma GCC unroll 4
  for (int i = 0; i < 8; i += 2) {
    t[i] = __builtin_shufflevector(rows[i], rows[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
    t[i + 1] = __builtin_shufflevector(rows[i], rows[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
  }
  #pragma GCC unroll 2
  for (int i = 0; i < 8; i += 4) {
    #pragma GCC unroll 2
    for (int j = 0; j < 2; ++j) {
      u[i + 2 * j] = __builtin_shufflevector(t[i + j], t[i + j + 2], 0, 1, 8, 9, 4, 5, 12, 13);
      u[i + 2 * j + 1] = __builtin_shufflevector(t[i + j], t[i + j + 2], 2, 3, 10, 11, 6, 7, 14, 15);
    }
  }
  #pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    rows[i] = __builtin_shufflevector(u[i], u[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
    rows[i + 4] = __builtin_shufflevector(u[i], u[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
  }
}

// [rows, columns] to [columns, rows].
LEANMARK_INLINE void transpose_all(const float* from, int64_t rows, int64_t columns, float* to) {
  const int64_t whole = rows - rows % 8;
  for (int64_t c = 0; c < columns; c += 8) {
    const int64_t count = std::min<int64_t>(8, columns - c);
    for (int64_t r = 0; r < whole && count == 8; r += 8) {
      Vector<8> square[8];
      #pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) square[i] = load<Vector<8>>(from + (r + i) * columns + c);
      transpose(square);
      #pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) store(square[i], to + (c + i) * rows + r);
    }
    for (int64_t i = 0; i < count; ++i) {
      for (int64_t r = count == 8 ? whole : 0; r < rows; ++r) to[(c + i) * rows + r] = from[r * columns + c + i];
    }
  }
}

// The tile of one slab: [channels, pitch], zero where there are no more rows.
LEANMARK_INLINE void pack_linear(const Plan& p, int64_t tile, int64_t channel, int64_t channels, float* to) {
  const int64_t first = tile * p.tile, count = std::min(p.tile, p.columns - first);
  const float* from = p.input + first * p.weights.channels + channel;
  const int64_t depth = p.weights.channels, whole = channels - channels % 8;
  for (int64_t m = 0; m < p.tile; m += 8) {
    const int64_t rows = std::min<int64_t>(8, count - m);
    for (int64_t c = 0; c < whole; c += 8) {
      Vector<8> square[8] = {};
      #pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) {
        if (i < rows) square[i] = load<Vector<8>>(from + (m + i) * depth + c);
      }
      transpose(square);
      #pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) store(square[i], to + (c + i) * p.pitch + m);
    }
    for (int64_t c = whole; c < channels; ++c) {
      for (int64_t i = 0; i < 8; ++i) to[c * p.pitch + m + i] = i < rows ? from[(m + i) * depth + c] : 0.0f;
    }
  }
}

// Bias, residual and ReLU for outputs [row, row + 8) of 8 columns, of which `columns` and `rows` exist.
LEANMARK_INLINE void finish_square(const Plan& p, Vector<8>* square, int64_t column, int64_t columns,
                                   int64_t row, int64_t rows) {
  using V = Vector<8>;
  transpose(square);
  const bool whole = rows == 8;
  V bias = {};
  if (p.bias) bias = whole ? load<V>(p.bias + row) : load_first<V>(p.bias + row, rows);
  #pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    if (i >= columns) break;
    const int64_t to = (column + i) * p.weights.rows + row;
    V value = square[i] + bias;
    if (p.residual) value += whole ? load<V>(p.residual + to) : load_first<V>(p.residual + to, rows);
    if (p.relu) value = relu(value);
    if (whole) {
      store(value, p.output + to);
    } else {
      store_first(value, p.output + to, rows);
    }
  }
}

// `rows` rows of sums over a tile, from `row` on, to the output.
LEANMARK_INLINE void finish_linear(const Plan& p, int64_t tile, int64_t row, int64_t rows, const float* sums) {
  const int64_t first = tile * p.tile, count = std::min(p.tile, p.columns - first);
  for (int64_t r = 0; r < rows; r += 8) {
    const int64_t height = std::min<int64_t>(8, rows - r);
    for (int64_t m = 0; m < count; m += 8) {
      Vector<8> square[8] = {};
      #pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) {
        if (i < height) square[i] = load<Vector<8>>(sums + (r + i) * p.tile + m);
      }
      finish_square(p, square, first + m, std::min<int64_t>(8, count - m), row + r, height);
    }
  }
}

}  // namespace leanmark::sparse
