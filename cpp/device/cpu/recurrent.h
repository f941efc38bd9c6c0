// What keeps a state: rows of a sequence go through it in order, so threads share what a row has side by side.
#pragma once
#include "device/cpu/kernels.h"
#include "device/device.h"

namespace foundry {
class ThreadPool;
}

namespace foundry::cpu {

/// Causal convolutions of a few taps, each channel by itself: threads share the channels.
void short_conv(const ShortConvArgs& args, const CpuKernels& kernels, ThreadPool& pool);

/// Threads share the heads of V.
void gated_delta(const GatedDeltaArgs& args, const CpuKernels& kernels, ThreadPool& pool);

}  // namespace foundry::cpu
