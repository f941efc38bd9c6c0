// The vocabulary first: kernels.inl is written in it.
#include "device/cpu/simd_avx2.h"
//
#include "device/cpu/kernels.inl"

namespace foundry::cpu {
const CpuKernels& kernels_avx2() { return avx2::kTable; }
}  // namespace foundry::cpu
