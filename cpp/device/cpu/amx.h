// Whether this process may use AMX's tile registers.
#pragma once

namespace foundry::cpu {

/// The processor has them, and AVX-512 as its kernels need it, and Linux lets this process use them: it asks once, for
/// threads that run then and later (kernel documentation, "Using XSTATE features in user space applications").
bool amx_is_permitted();

}  // namespace foundry::cpu
