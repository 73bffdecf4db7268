// Winograd convolution for AVX2 and FMA.
#define LEANMARK_TARGET __attribute__((target("avx2,fma")))

#include "cpu/winograd/phases.h"

namespace leanmark::winograd {

const Phases& phases_avx2(Form form) { return PhasesOf<8, 6, 1, 2>::of(form); }

}  // namespace leanmark::winograd
