// The rows of a convolution's product, copied out of an image.
#pragma once

#include <algorithm>
#include <cstdint>

#include "cpu/int8_linear/plan.h"
#include "cpu/vector.h"

namespace leanmark::int8_linear {

// The output pixel that a row belongs to.
struct Pixel {
  int64_t image, y, x;

  LEANMARK_INLINE Pixel(const Patches& p, int64_t row)
      : image(row / p.out_width / p.out_height), y(row / p.out_width % p.out_height), x(row % p.out_width) {}

  LEANMARK_INLINE void advance(const Patches& p) {
    if (++x < p.out_width) return;
    x = 0;
    if (++y < p.out_height) return;
    y = 0;
    ++image;
  }
};

// copy(from, count, to) takes values, fill(count, to) writes those of the padding.
template <class Copy, class Fill>
LEANMARK_INLINE void gather(const Patches& p, const uint8_t* images, const Pixel& at, uint8_t* to, const Copy& copy,
                            const Fill& fill) {
  const int64_t left = at.x * p.stride_x - p.padding_x, top = at.y * p.stride_y - p.padding_y;
  const uint8_t* image = images + at.image * p.height * p.width * p.pixel;
  const bool in_one = p.dilation_x == 1 && p.channels == p.pixel;  // a line of the kernel is one stretch
  for (int64_t i = 0; i < p.kernel_height; ++i) {
    const int64_t y = top + i * p.dilation_y;
    if (y < 0 || y >= p.height) {
      fill(p.kernel_width * p.channels, to);
      to += p.kernel_width * p.channels;
    } else if (in_one) {
      const int64_t before = std::clamp<int64_t>(-left, 0, p.kernel_width);
      const int64_t present = std::clamp<int64_t>(p.width - left, before, p.kernel_width) - before;
      const int64_t after = p.kernel_width - before - present;
      if (before > 0) fill(before * p.channels, to);
      to += before * p.channels;
      if (present > 0) copy(image + (y * p.width + left + before) * p.pixel, present * p.channels, to);
      to += present * p.channels;
      if (after > 0) fill(after * p.channels, to);
      to += after * p.channels;
    } else {
      for (int64_t j = 0; j < p.kernel_width; ++j, to += p.channels) {
        const int64_t x = left + j * p.dilation_x;
        if (x < 0 || x >= p.width) {
          fill(p.channels, to);
        } else {
          copy(image + (y * p.width + x) * p.pixel, p.channels, to);
        }
      }
    }
  }
}

}  // namespace leanmark::int8_linear
