// The launches of mixtures of experts.
#pragma once
#include "device/gpu/kernel_queue.h"

namespace foundry {

Dispatch route_launch(const RouteArgs& args);
/// Of a weight in the file's order. Each expert's place in a row is a threadgroup's own, which reads its matrix: of
/// many rows the same matrix is read once for each that chose it.
Dispatch linear_routed_launch(const LinearRoutedArgs& args);
Dispatch sum_routed_launch(const SumRoutedArgs& args);

}  // namespace foundry
