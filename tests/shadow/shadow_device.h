// "shadow" and "shadow:ahead": test devices over the CPU's, whose `device` memory is out of the host's reach, as a
// discrete GPU's is. A look at it, but by the device's own ops and copies, ends the process. Nothing runs before somebody
// waits for it, so what is read too early is seen as well. "shadow:ahead" lets steps run ahead of the host.
#pragma once
#include <memory>

#include "device/device.h"

namespace foundry::test {

/// Of the options the threads count.
std::unique_ptr<Device> make_shadow_device(const DeviceOptions& options);
/// Both are among device_names() then.
void register_shadow_devices();

}  // namespace foundry::test
