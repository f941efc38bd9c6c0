// Apple GPUs: the kernels of metal/ through Metal (macOS 14 and later, Metal 3).
#pragma once
#include <memory>

#include "device/device.h"

namespace foundry {

/// Whether there is a GPU that make_metal_device takes.
bool metal_available();
/// Throws ValueError where there is none. `strict` as make_gpu_device has it.
std::unique_ptr<Device> make_metal_device(const DeviceOptions& options, bool strict);

}  // namespace foundry
