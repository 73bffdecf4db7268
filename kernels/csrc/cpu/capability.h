// Which instruction set the kernels of this process use: decided once, by CPUID, when first asked.
#pragma once

namespace leanmark {

enum class Capability { kPortable, kAvx2, kAvx512 };

// The best set that this CPU and this build have. The environment variable ATEN_CPU_CAPABILITY
// (default, avx2, avx512), which torch's own kernels obey, can lower it but never raise it.
Capability capability();

}  // namespace leanmark
