#include "cpu/capability.h"

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <cstdlib>
#include <string>

namespace leanmark {
namespace {

Capability supported() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  // compiled for what every server processor with AVX-512 has; Xeon Phi has only the foundation
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  if (avx2 && avx512 && __builtin_cpu_supports("avx512vnni")) return Capability::kAvx512Vnni;
  if (avx2 && avx512) return Capability::kAvx512;
  if (avx2) return Capability::kAvx2;
#endif
  return Capability::kPortable;
}

Capability allowed() {
  const char* value = std::getenv("ATEN_CPU_CAPABILITY");
  const std::string name = value ? value : "";
  if (name == "default") return Capability::kPortable;
  if (name == "avx2") return Capability::kAvx2;
  if (name == "avx512") return Capability::kAvx512;
  return Capability::kAvx512Vnni;
}

std::string capability_name() {
  switch (capability()) {
    case Capability::kAvx512Vnni: return "avx512_vnni";
    case Capability::kAvx512: return "avx512";
    case Capability::kAvx2: return "avx2";
    case Capability::kPortable: break;
  }
  return "default";
}

}  // namespace

Capability capability() {
  static const Capability chosen = std::min(supported(), allowed());
  return chosen;
}

STABLE_TORCH_LIBRARY_IMPL(leanmark, CompositeExplicitAutograd, m) {
  m.impl("cpu_capability", TORCH_BOX(&capability_name));
}

}  // namespace leanmark
