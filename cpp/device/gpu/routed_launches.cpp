#include "device/gpu/routed_launches.h"

#include "device/gpu/gpu_weight.h"
#include "device/gpu/launch_sizes.h"
#include "launch.h"

namespace foundry {

Dispatch route_launch(const RouteArgs& args) {
  Dispatch launch("route", {args.p.n_rows}, RouteLaunch::kThreads);
  launch.buffer(args.scores)
      .buffer(args.bias == nullptr ? args.scores : span_of(args.bias))  // then never read
      .buffer(args.chosen)
      .buffer(args.weights)
      .value(args.p)
      .constant(0, args.bias != nullptr);
  return launch.costs(moved(args.p.n_rows, args.p.n_experts, 2 + args.p.n_used));
}

Dispatch linear_routed_launch(const LinearRoutedArgs& args) {
  const LinearRoutedParams& p = args.p;
  const uint32_t parts = p.n_rows * p.n_used;
  const Grid grid{parts, groups(p.out_features, LinearRoutedLaunch::kSimdgroups * LinearRoutedLaunch::kOutputs)};
  Dispatch launch("linear_routed", grid, LinearRoutedLaunch::kThreads);
  launch.of(dtype_name(args.weight->type));
  if (p.in_features % LinearRoutedLaunch::kNeighbours != 0) launch.of("single");
  launch.buffer(args.in)
      .buffer(span_of(args.weight))
      .buffer(args.bias == nullptr ? args.in : span_of(args.bias))  // then never read
      .buffer(args.chosen)
      .buffer(args.out)
      .value(p)
      .constant(0, args.bias != nullptr);
  const double matrix = static_cast<double>(gpu_weight(args.weight).buffer->bytes()) / p.n_experts;
  return launch.costs(matrix * parts, double{1} * parts * p.in_features * p.out_features);
}

Dispatch sum_routed_launch(const SumRoutedArgs& args) {
  const uint64_t n = uint64_t{args.p.n_rows} * args.p.width;
  Dispatch launch("sum_routed", {groups(n, ElementwiseLaunch::kThreads)}, ElementwiseLaunch::kThreads);
  launch.buffer(args.in).buffer(args.weights).buffer(args.out).value(args.p);
  return launch.costs(moved(1, n, 1 + args.p.n_used));
}

}  // namespace foundry
