// The KernelQueue of an NVIDIA GPU: the kernels of metal/, translated to CUDA.
#pragma once
#include <memory>

#include "device/device.h"

namespace foundry {

/// On the first GPU, in host memory that it maps: every byte can be seen from both sides, which is what tests want and speed does
/// not. Throws ValueError where there is no GPU.
std::unique_ptr<Device> make_cuda_device(const DeviceOptions& options);

}  // namespace foundry
