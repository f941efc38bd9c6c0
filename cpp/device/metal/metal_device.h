// Apple GPUs: the kernels of metal/ through Metal (macOS 14 and later, Metal 3).
#pragma once
#include <memory>

#include "device/device.h"

namespace foundry {

/// Whether make_metal_device takes "metal".
bool metal_available();
/// Whether "auto" is "metal" here: a GPU of a family on which it has been seen right.
bool metal_trusted();
/// "metal" takes Apple GPUs from M1 on, "metal:any" also those that report an older family (a virtual GPU), which are
/// never named unless asked for. Each with ":strict" behind it is as make_gpu_device has strict. Null: no name of
/// these. ValueError: there is no such GPU; it says what there is.
std::unique_ptr<Device> make_metal_device(const DeviceOptions& options);

}  // namespace foundry
