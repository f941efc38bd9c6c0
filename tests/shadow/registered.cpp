// In an extension for tests: the shadow devices are there from its import on.
#include "shadow/shadow_device.h"

namespace {
[[maybe_unused]] const bool registered = (foundry::test::register_shadow_devices(), true);
}  // namespace
