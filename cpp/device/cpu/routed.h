// Linear layers of experts: rows are laid together by expert, and each expert that has some is multiplied with all of
// its own at once, by the kernel that linear has. A row's bits are those of linear with that expert's matrix.
#pragma once
#include "device/cpu/kernels.h"
#include "device/device.h"

namespace foundry {
class ThreadPool;
}

namespace foundry::cpu {

uint64_t routed_scratch_bytes(const StepShape& shape);

/// Panels of all experts, one expert behind the other, each with panels of its own.
void linear_routed(const LinearRoutedArgs& args, const std::byte* panels, const CpuKernels& kernels, ThreadPool& pool,
                   std::byte* scratch);

}  // namespace foundry::cpu
