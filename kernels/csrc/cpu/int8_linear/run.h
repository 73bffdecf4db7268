// What the operators on packed 8-bit weights share.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <optional>

#include "cpu/int8_linear/plan.h"

namespace leanmark::int8_linear {

// Refuses what would read stray memory, in the words of `operator_name`; the Python entries explain mistakes.
// `depth` is that of the rows.
void check_layer(const char* operator_name, const torch::stable::Tensor& scale,
                 const std::optional<torch::stable::Tensor>& bias, int64_t depth, int64_t columns);

// What follows the weights of a layer [columns, depth] in bytes: panels, and bytes of each.
int64_t panels_for(int64_t columns);
int64_t panel_bytes_for(int64_t depth);

// Packs the rows and multiplies them. The caller gives everything of the plan up to its flags.
void run(Plan& plan);

// The same for rows of floats, which are rounded to `bits` first; the plan's input and its scales are left open.
void run_dynamic(Plan& plan, const float* rows, int64_t bits);

}  // namespace leanmark::int8_linear
