// The readable truth of every op, one row at a time, sums in double: what every other device is measured against.
#pragma once
#include <memory>

#include "device/device.h"

namespace foundry {

std::unique_ptr<Device> make_reference_device();

}  // namespace foundry
