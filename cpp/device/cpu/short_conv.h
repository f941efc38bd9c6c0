// Causal convolutions of a few taps, each channel by itself: threads share the channels, and a thread goes through
// the rows in order.
#pragma once
#include "device/device.h"

namespace foundry {
class ThreadPool;
}

namespace foundry::cpu {

void short_conv(const ShortConvArgs& args, ThreadPool& pool);

}  // namespace foundry::cpu
