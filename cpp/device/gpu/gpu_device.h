// The ops as launches of the kernels in metal/. Knows no framework: a KernelQueue runs them.
#pragma once
#include <memory>

#include "device/gpu/kernel_queue.h"

namespace foundry {

/// Strict: a row's bits depend on its tokens alone, not on how many rows a step has. Every row then takes the kernels
/// of few rows, which read weights and K/V once for each few of them.
std::unique_ptr<Device> make_gpu_device(std::unique_ptr<KernelQueue> queue, bool strict = false);

}  // namespace foundry
