// Which experts a row goes through: one answer for all devices that run on the host, for a choice that turned on a
// rounding would be another model's answer.
#pragma once
#include "device/device.h"

namespace foundry {

/// RouteArgs, of rows begin .. end. In double, and allocates nothing.
void route(const RouteArgs& args, uint64_t begin, uint64_t end);

}  // namespace foundry
