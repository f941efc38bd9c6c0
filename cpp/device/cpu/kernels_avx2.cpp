#include "device/cpu/kernels.inl"
#include "device/cpu/simd_avx2.h"

namespace foundry::cpu {
const CpuKernels& kernels_avx2() { return avx2::kTable; }
}  // namespace foundry::cpu
