// The ops as launches of the kernels in metal/. Knows no framework: a KernelQueue runs them.
#pragma once
#include <memory>

#include "device/gpu/kernel_queue.h"

namespace foundry {

std::unique_ptr<Device> make_gpu_device(std::unique_ptr<KernelQueue> queue);

}  // namespace foundry
