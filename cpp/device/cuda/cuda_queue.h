// The KernelQueue of an NVIDIA GPU: the kernels of metal/, translated to CUDA.
#pragma once
#include <memory>

#include "device/device.h"

namespace foundry {

/// On the first GPU: `device` memory is its own, `shared` memory the host's, which it maps. Throws ValueError where there is
/// no GPU.
std::unique_ptr<Device> make_cuda_device(const DeviceOptions& options);

}  // namespace foundry
