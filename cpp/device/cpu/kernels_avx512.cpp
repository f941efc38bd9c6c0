#include "device/cpu/kernels.inl"
#include "device/cpu/simd_avx512.h"

namespace foundry::cpu {
const CpuKernels& kernels_avx512() { return avx512::kTable; }
}  // namespace foundry::cpu
