// The four pixels of each square of 2x2 as channels of one pixel: a convolution of stride 2 becomes one of stride 1
// with half the kernel.
#pragma once

#include <cstdint>
#include <cstring>

namespace leanmark::winograd {

constexpr int64_t kSquare = 4;  // pixels

struct Squares {
  const float* input;
  int64_t image, line, pixel, plane;  // floats from one of these to the next: of images in any layout
  int64_t height, width, in_channels, padding;
  int64_t high, wide, channels;  // of the output [batch, high, wide, channels], zero where nothing belongs

  // Rows [begin, end) of all images. Channels: rows of the square, then columns, then those of the input.
  void write(float* to, int64_t begin, int64_t end) const {
    to += begin * wide * channels;
    std::memset(to, 0, (end - begin) * wide * channels * sizeof(float));
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t column = 0; column < wide; ++column, to += channels) {
        for (int64_t down = 0; down < 2; ++down) {
          const int64_t y = 2 * (row % high) + down - padding;
          if (y < 0 || y >= height) continue;
          copy_pair(input + row / high * image + y * line, 2 * column - padding, to + 2 * down * in_channels);
        }
      }
    }
  }

 private:
  // Two pixels that lie side by side, as far as they exist.
  void copy_pair(const float* from, int64_t x, float* to) const {
    const bool whole = x >= 0 && x + 1 < width;
    if (whole && in_channels == 3) {  // a colour image: a length that the compiler knows
      copy_pixel(from + x * pixel, 3, to);
      copy_pixel(from + (x + 1) * pixel, 3, to + 3);
      return;
    }
    for (int64_t right = 0; right < 2; ++right) {
      if (x + right < 0 || x + right >= width) continue;
      copy_pixel(from + (x + right) * pixel, in_channels, to + right * in_channels);
    }
  }

  void copy_pixel(const float* from, int64_t count, float* __restrict to) const {
    for (int64_t channel = 0; channel < count; ++channel) to[channel] = from[channel * plane];
  }
};

}  // namespace leanmark::winograd
