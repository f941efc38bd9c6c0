#include "device/gpu/recurrent_launches.h"

#include <string>

#include "base/error.h"
#include "device/gpu/gpu_weight.h"
#include "device/gpu/launch_sizes.h"
#include "launch.h"

namespace foundry {
namespace {

/// Lanes that have a column of a state between them: as few as hold it.
uint32_t delta_slices(uint32_t head_k) {
#define FOUNDRY_DELTA_FITS(slices) \
  if (head_k <= slices * GatedDeltaLaunch::kKeys) return slices;
  FOUNDRY_DELTA_SLICES(FOUNDRY_DELTA_FITS)
  throw ConsistencyError("a delta net whose keys have " + std::to_string(head_k) + " values");
}

}  // namespace

Dispatch short_conv_launch(const ShortConvArgs& args, const SomeRuns& runs) {
  const uint32_t rows = runs.rows();
  Dispatch launch("short_conv", {rows, groups(args.p.channels, ShortConvLaunch::kThreads)}, ShortConvLaunch::kThreads);
  launch.buffer(args.in)
      .buffer(span_of(args.taps))
      .buffer(args.bias == nullptr ? args.in : span_of(args.bias))  // then never read
      .buffer(args.out)
      .bytes(runs.first, runs.n * sizeof(StateRun))
      .value(runs.n)
      .value(args.p)
      .constant(0, args.bias != nullptr);
  return launch.costs(moved(rows, args.p.channels, 2 + 2 * args.p.taps));
}

Dispatch short_conv_state_launch(const ShortConvArgs& args, const SomeRuns& runs) {
  const Grid grid{groups(args.p.channels, ShortConvLaunch::kThreads), runs.n};
  Dispatch launch("short_conv_state", grid, ShortConvLaunch::kThreads);
  launch.buffer(args.in).bytes(runs.first, runs.n * sizeof(StateRun)).value(runs.n).value(args.p);
  return launch.costs(moved(runs.n, args.p.channels, 3 * args.p.taps));
}

Dispatch gated_delta_launch(const GatedDeltaArgs& args, const SomeRuns& runs) {
  const GatedDeltaParams& p = args.p;
  const uint32_t slices = delta_slices(p.head_k), columns = GatedDeltaLaunch::kThreads / slices;
  Dispatch launch("gated_delta", {groups(p.head_v, columns), p.v_heads, runs.n}, GatedDeltaLaunch::kThreads);
  launch.of(std::to_string(slices).c_str())
      .buffer(args.mixed)
      .buffer(args.alpha)
      .buffer(args.beta)
      .buffer(span_of(args.decay))
      .buffer(span_of(args.bias))
      .buffer(args.out)
      .bytes(runs.first, runs.n * sizeof(StateRun))
      .value(runs.n)
      .value(p);
  const double state = moved(p.v_heads, uint64_t{p.head_k} * p.head_v, 1);
  return launch.costs(2 * state * runs.n, state * runs.rows());
}

Dispatch gated_delta_norm_launch(const GatedDeltaArgs& args) {
  Dispatch launch("gated_delta_norm", {args.p.n_rows, args.p.v_heads}, GatedDeltaLaunch::kNormThreads);
  launch.buffer(args.out).buffer(args.z).buffer(span_of(args.norm)).value(args.p);
  return launch.costs(moved(args.p.n_rows, uint64_t{args.p.v_heads} * args.p.head_v, 4));
}

}  // namespace foundry
