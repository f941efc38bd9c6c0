// What this processor has of that the kernels of x86 are built for.
#pragma once

namespace foundry::cpu {

bool has_avx2();
bool has_avx512();
/// The processor has AMX's tiles and AVX-512, and Linux lets this process use the tiles: it is asked once, for threads that
/// run then and later (kernel documentation, "Using XSTATE features in user space applications").
bool has_amx();

}  // namespace foundry::cpu
