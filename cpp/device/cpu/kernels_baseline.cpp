// The vocabulary first: kernels.inl is written in it.
#include "device/cpu/simd_baseline.h"
//
#include "device/cpu/kernels.inl"

namespace foundry::cpu {
const CpuKernels& kernels_baseline() { return baseline::kTable; }
}  // namespace foundry::cpu
