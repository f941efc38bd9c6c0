#include "device/cpu/kernels.inl"
#include "device/cpu/simd_baseline.h"

namespace foundry::cpu {
const CpuKernels& kernels_baseline() { return baseline::kTable; }
}  // namespace foundry::cpu
