// Linear layers of experts: rows are laid together by expert, and each expert that has some is multiplied with all of
// its own at once, by the kernel that linear has; as many experts in turn as are packed at once. A row's bits are those
// of linear with that expert's matrix.
#pragma once
#include "device/cpu/experts.h"
#include "device/cpu/kernels.h"
#include "device/device.h"

namespace foundry {
class ThreadPool;
}

namespace foundry::cpu {

uint64_t routed_scratch_bytes(const StepShape& shape);

void linear_routed(const LinearRoutedArgs& args, Experts& experts, const CpuKernels& kernels, ThreadPool& pool,
                   std::byte* scratch);

}  // namespace foundry::cpu
