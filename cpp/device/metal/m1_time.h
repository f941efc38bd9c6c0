// How long a launch would keep an M1 busy, guessed high: the slowest GPU that there is a device for. Only for where to
// cut a step into command buffers: macOS ends what keeps a GPU for some seconds, and shows nothing else meanwhile.
#pragma once
#include "device/gpu/kernel_queue.h"

namespace foundry {

/// An M1 has 68 GB/s and 1.3e12 multiply-adds a second; kernels get a part of that.
inline double m1_seconds(const Work& work) { return 5e-6 + work.bytes / 30e9 + work.products / 0.4e12; }

/// A command buffer takes no more, but where one launch does by itself.
inline constexpr double kLongestOnM1 = 0.15;

}  // namespace foundry
