// Winograd convolution for AVX-512.
#define LEANMARK_TARGET __attribute__((target("avx512f")))

#include "cpu/winograd/phases.h"

namespace leanmark::winograd {

const Phases& phases_avx512(Form form) { return PhasesOf<16, 12, 2, 4>::of(form); }

}  // namespace leanmark::winograd
