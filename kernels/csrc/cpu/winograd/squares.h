// The four pixels of each square of 2x2 as channels of one pixel: a convolution of stride 2 becomes one of stride 1
// with half the kernel.
#pragma once

#include <cstdint>
#include <cstring>

namespace leanmark::winograd {

constexpr int64_t kSquare = 4;  // pixels

struct Squares {
  const float* input;  // [batch, height, width, in_channels]
  int64_t height, width, in_channels, padding;
  int64_t high, wide, channels;  // of the output [batch, high, wide, channels], zero where nothing belongs

  // Rows [begin, end) of all images. Channels: rows of the square, then columns, then those of the input.
  void write(float* to, int64_t begin, int64_t end) const {
    to += begin * wide * channels;
    for (int64_t row = begin; row < end; ++row) {
      const float* image = input + row / high * height * width * in_channels;
      for (int64_t column = 0; column < wide; ++column, to += channels) {
        std::memset(to, 0, channels * sizeof(float));
        for (int64_t down = 0; down < 2; ++down) {
          const int64_t y = 2 * (row % high) + down - padding;
          if (y < 0 || y >= height) continue;
          copy_pair(image + y * width * in_channels, 2 * column - padding, to + 2 * down * in_channels);
        }
      }
    }
  }

 private:
  // Two pixels that lie side by side, as far as they exist.
  void copy_pair(const float* line, int64_t x, float* to) const {
    const bool whole = x >= 0 && x + 1 < width;
    if (whole && in_channels == 3) {  // a colour image, with a length that the compiler knows
      std::memcpy(to, line + x * 3, 6 * sizeof(float));
    } else if (whole) {
      std::memcpy(to, line + x * in_channels, 2 * in_channels * sizeof(float));
    } else {
      for (int64_t right = 0; right < 2; ++right) {
        if (x + right < 0 || x + right >= width) continue;
        std::memcpy(to + right * in_channels, line + (x + right) * in_channels, in_channels * sizeof(float));
      }
    }
  }
};

}  // namespace leanmark::winograd
