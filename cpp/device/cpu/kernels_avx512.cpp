// The vocabulary first: kernels.inl is written in it.
#include "device/cpu/simd_avx512.h"
//
#include "device/cpu/kernels.inl"

namespace foundry::cpu {
const CpuKernels& kernels_avx512() { return avx512::kTable; }
}  // namespace foundry::cpu
