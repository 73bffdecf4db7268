#include "cpu/int8_linear/images.h"

#include "cpu/checks.h"
#include "cpu/int8_linear/quantize.h"
#include "cpu/tensors.h"
#include "cpu/zero_point.h"

namespace leanmark::int8_linear {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

Images rounded(const Tensor& input) {
  const Tensor x = channels_last(input);
  const int64_t count = x.size(0), depth = x.size(1) * x.size(2) * x.size(3);
  const Tensor values = allocate_bytes(count * depth), scales = allocate_row_major({count});
  auto* bytes = static_cast<int8_t*>(values.mutable_data_ptr());
  auto* scale = scales.mutable_data_ptr<float>();
  quantize({x.const_data_ptr<float>(), count, depth, 8, 0, bytes, depth, depth, scale});
  return {values, scales, bytes, scale, false, count == 1};
}

}  // namespace

void check_images(const char* name, const Tensor& input, const std::optional<Tensor>& scale, int64_t zero_point) {
  const ScalarType dtype = input.scalar_type();
  STD_TORCH_CHECK((dtype == ScalarType::Char || dtype == ScalarType::Byte || dtype == ScalarType::Float) &&
                      input.dim() == 4,
                  name, ": input must be int8, uint8 or float32 and [N, C, H, W]");
  if (dtype == ScalarType::Float) {
    STD_TORCH_CHECK(!scale && zero_point == 0, name, ": input_scale and zero_point are for integers only");
    return;
  }
  STD_TORCH_CHECK(is_value(input, zero_point), name, ": zero_point must be a value of input's dtype");
  STD_TORCH_CHECK(scale && (is_vector(*scale, 1) || is_vector(*scale, input.size(0))), name,
                  ": input_scale must be float32 and [1] or [N]");
}

Images images_of(const Tensor& input, const std::optional<Tensor>& scale) {
  if (!scale) return rounded(input);
  const Tensor x = channels_last(input), s = row_major(*scale);
  return {x, s, x.const_data_ptr(), s.const_data_ptr<float>(), x.scalar_type() == ScalarType::Byte, s.size(0) == 1};
}

}  // namespace leanmark::int8_linear
