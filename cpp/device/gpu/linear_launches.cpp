#include "device/gpu/linear_launches.h"

#include "device/gpu/gpu_weight.h"
#include "device/gpu/launch_sizes.h"
#include "launch.h"

namespace foundry {
namespace {

double weight_bytes(const LinearArgs::Output& output) {
  return static_cast<double>(gpu_weight(output.weight).buffer->bytes());
}
double products(const LinearArgs::Output& output) {
  return double{1} * output.p.n_rows * output.p.in_features * output.p.out_features;
}

/// Both kernels' first six; what is not there is never read.
void bind(Dispatch& launch, const LinearArgs& args, const LinearArgs::Output& output, Span in, Span out) {
  const bool bias = output.bias != nullptr, residual = args.residual.buffer != nullptr;
  launch.buffer(in)
      .buffer(span_of(output.weight))
      .buffer(bias ? span_of(output.bias) : in)
      .buffer(residual ? args.residual : in)
      .buffer(out)
      .value(output.p);
  launch.constant(0, bias).constant(1, residual);
}

}  // namespace

bool takes_tiles(const LinearParams& p) {
  return p.in_features % LinearTilesLaunch::kNeighbours == 0 && p.n_rows >= LinearTilesLaunch::kFromRows;
}

Dispatch linear_tiles_launch(const LinearArgs& args, const LinearArgs::Output& output) {
  const Grid grid{groups(output.p.out_features, LinearTilesLaunch::kSide),
                  groups(output.p.n_rows, LinearTilesLaunch::kSide)};
  Dispatch launch("linear_tiles", grid, LinearTilesLaunch::kThreads);
  launch.of(dtype_name(output.weight->type));
  bind(launch, args, output, args.in, output.out);
  return launch.costs(weight_bytes(output) * grid.y, products(output));
}

Dispatch linear_rows_launch(const LinearArgs& args, const LinearArgs::Output& output) {
  const bool norm = args.norm.weight != nullptr, gate = args.gate != LinearArgs::Gate::none;
  const uint32_t outputs = LinearLaunch::kSimdgroups * (gate ? 1u : uint32_t{LinearLaunch::kOutputs});
  const Grid grid{groups(output.p.out_features, outputs), groups(output.p.n_rows, LinearLaunch::kRows)};
  Dispatch launch("linear", grid, LinearLaunch::kThreads);
  launch.of(dtype_name(output.weight->type));
  if (output.p.in_features % LinearLaunch::kNeighbours != 0) launch.of("single");
  bind(launch, args, output, norm ? args.norm.in : args.in, gate ? args.gated : output.out);
  launch.buffer(norm ? span_of(args.norm.weight) : args.in)
      .buffer(gate ? span_of(args.outputs[1].weight) : span_of(output.weight))
      .value(args.norm.p.eps);
  launch.constant(2, norm).constant(3, gate).constant(4, args.gate == LinearArgs::Gate::geglu);
  const double weights = gate ? 2 : 1;
  return launch.costs(weights * weight_bytes(output) * grid.y, weights * products(output));
}

}  // namespace foundry
