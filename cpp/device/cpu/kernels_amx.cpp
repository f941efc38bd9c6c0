// AMX (Intel, from Sapphire Rapids on): linear layers of sixteen rows and more; all else is AVX-512's.
#define FOUNDRY_ISA amx
#include "device/cpu/simd_avx512.h"
//
#include "device/cpu/linear_amx.inl"

namespace foundry::cpu {
const CpuKernels& kernels_amx() {
  static const CpuKernels kTable = [] {
    CpuKernels table = kernels_avx512();
    table.isa = "amx";
    table.linear = amx::linear;
    return table;
  }();
  return kTable;
}
}  // namespace foundry::cpu
