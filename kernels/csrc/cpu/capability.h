// Which instruction set the kernels of this process use: decided once, by CPUID, when first asked.
#pragma once

namespace leanmark {

// Each includes those before it.
enum class Capability { kPortable, kAvx2, kAvx512, kAvx512Vnni };

// The best set that this CPU and this build have. The environment variable ATEN_CPU_CAPABILITY
// (default, avx2, avx512), which torch's own kernels obey, can lower it but never raise it: avx512 is without
// the byte products of VNNI.
Capability capability();

}  // namespace leanmark
