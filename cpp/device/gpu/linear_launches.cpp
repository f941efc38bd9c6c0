#include "device/gpu/linear_launches.h"

#include <algorithm>
#include <span>
#include <string>

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

/// The weight's format, and its order.
void of_format(Dispatch& launch, const LinearArgs::Output& output) {
  launch.of(dtype_name(output.weight->type));
  if (gpu_weight(output.weight).arranged) launch.of("arranged");
}

/// All kernels' first six; what is not there is never read.
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

/// And the rest of those that fuse. The second weight is a gate's or a sibling's.
void bind_fused(Dispatch& launch, const LinearArgs& args, const LinearArgs::Output& output,
                std::span<const LinearArgs::Output> siblings = {}) {
  const bool norm = args.norm.weight != nullptr, gate = args.gate != LinearArgs::Gate::none;
  bind(launch, args, output, norm ? args.norm.in : args.in, gate ? args.gated : output.out);
  launch.buffer(norm ? span_of(args.norm.weight) : args.in)
      .buffer(span_of(gate               ? args.outputs[1].weight
                      : siblings.empty() ? output.weight
                                         : siblings[0].weight))
      .value(args.norm.p.eps);
  launch.constant(2, norm).constant(3, gate).constant(4, args.gate == LinearArgs::Gate::geglu);
}

/// linear_few's last.
void bind_siblings(Dispatch& launch, const LinearArgs& args, const LinearArgs::Output& output,
                   std::span<const LinearArgs::Output> siblings) {
  const auto of = [&](size_t i) -> const LinearArgs::Output& { return i < siblings.size() ? siblings[i] : output; };
  const auto bias = [&](size_t i) { return of(i).bias == nullptr ? args.in : span_of(of(i).bias); };
  launch.buffer(span_of(of(1).weight)).buffer(bias(0)).buffer(bias(1)).buffer(of(0).out).buffer(of(1).out);
  launch.value(of(0).p).value(of(1).p);
  launch.constant(5, !siblings.empty());
}

/// Of a value of the weight, as wide tiles have it; 0: they don't.
uint32_t halves_of_value(const Weight* weight) {
  if (gpu_weight(weight).arranged) return 1;
  switch (weight->type) {
#define FOUNDRY_HALVES(name, Name, halves) \
  case DType::name:                        \
    return halves;
    FOUNDRY_WIDE(FOUNDRY_HALVES)
#undef FOUNDRY_HALVES
    default:
      return 0;
  }
}

template <uint32_t kSide>
uint32_t wide_room(uint32_t halves) {
  return halves == 1 ? uint32_t{LinearWideRoom<kSide, 1>::kBytes} : uint32_t{LinearWideRoom<kSide, 2>::kBytes};
}

}  // namespace

uint32_t tile_rows(bool narrow_tiles) {
  return narrow_tiles ? uint32_t{LinearFewLaunch::kMostRows} + 1 : uint32_t{LinearTilesLaunch::kFromRows};
}

bool suits_tiles(const LinearParams& p) {
  static_assert(uint32_t{LinearFewLaunch::kNeighbours} == uint32_t{LinearTilesLaunch::kNeighbours});
  return p.in_features % LinearTilesLaunch::kNeighbours == 0;
}

bool suits_narrow_tiles(const Weight* weight) {
  return gpu_weight(weight).arranged || block_elements(weight->type) == 1;
}

bool suits_wide_tiles(const Weight* weight) { return halves_of_value(weight) != 0; }

uint64_t SplitRows::bytes(uint64_t rows, uint64_t width) {
  return factors_at(rows, width) + (1 + padded(width) / 32) * rows * sizeof(float);
}

Dispatch split_rows_launch(const SplitRowsParams& p, Span in, Span room) {
  Dispatch launch("split_rows", {p.n_rows}, SplitRowsLaunch::kThreads);
  return launch.buffer(in)
      .buffer(room)
      .buffer({room.buffer, room.offset + SplitRows::factors_at(p.n_rows, p.width)})
      .value(p)
      .costs(double{12} * p.n_rows * p.padded);
}

Dispatch linear_wide_launch(const LinearArgs& args, const LinearArgs::Output& output, Span split) {
  const bool narrow = output.p.n_rows <= LinearWideLaunch::kNarrow;
  constexpr uint32_t kSide = LinearWideLaunch::kSide, kNarrow = LinearWideLaunch::kNarrow;
  const uint32_t side = narrow ? kNarrow : kSide, halves = halves_of_value(output.weight);
  const uint32_t row_groups = groups(output.p.n_rows, side);
  Dispatch launch("linear_wide", {row_groups * groups(output.p.out_features, side)}, side * 2);
  of_format(launch, output);
  launch.of(std::to_string(side).c_str());
  const bool bias = output.bias != nullptr, residual = args.residual.buffer != nullptr;
  const uint64_t factors = SplitRows::factors_at(output.p.n_rows, output.p.in_features);
  launch.buffer(split)
      .buffer({split.buffer, split.offset + factors})
      .buffer(span_of(output.weight))
      .buffer(bias ? span_of(output.bias) : split)
      .buffer(residual ? args.residual : split)
      .buffer(output.out)
      .value(output.p)
      .room(narrow ? wide_room<kNarrow>(halves) : wide_room<kSide>(halves));
  launch.constant(0, bias).constant(1, residual);
  return launch.costs(weight_bytes(output) * row_groups, products(output));
}

Dispatch linear_tiles_launch(const LinearArgs& args, const LinearArgs::Output& output) {
  const Grid grid{groups(output.p.out_features, LinearTilesLaunch::kSide),
                  groups(output.p.n_rows, LinearTilesLaunch::kSide)};
  Dispatch launch("linear_tiles", grid, LinearTilesLaunch::kThreads);
  of_format(launch, output);
  bind(launch, args, output, args.in, output.out);
  return launch.costs(weight_bytes(output) * grid.y, products(output));
}

Dispatch linear_rows_launch(const LinearArgs& args, const LinearArgs::Output& output) {
  const bool gate = args.gate != LinearArgs::Gate::none;
  const uint32_t outputs = LinearLaunch::kSimdgroups * (gate ? 1u : uint32_t{LinearLaunch::kOutputs});
  const Grid grid{groups(output.p.out_features, outputs), groups(output.p.n_rows, LinearLaunch::kRows)};
  Dispatch launch("linear", grid, LinearLaunch::kThreads);
  launch.of(dtype_name(output.weight->type));
  if (output.p.in_features % LinearLaunch::kNeighbours != 0) launch.of("single");
  bind_fused(launch, args, output);
  const double weights = gate ? 2 : 1;
  return launch.costs(weights * weight_bytes(output) * grid.y, weights * products(output));
}

bool are_of_one_launch(const LinearArgs& args) {
  const size_t n = args.outputs.size();
  if (n < 2 || n > 3 || args.gate != LinearArgs::Gate::none) return false;
  const LinearArgs::Output& first = args.outputs.front();
  return std::all_of(args.outputs.begin(), args.outputs.end(), [&](const LinearArgs::Output& one) {
    return suits_narrow_tiles(one.weight) && one.weight->type == first.weight->type &&
           (one.bias == nullptr) == (first.bias == nullptr) &&
           gpu_weight(one.weight).arranged == gpu_weight(first.weight).arranged;
  });
}

Dispatch linear_few_launch(const LinearArgs& args, std::span<const LinearArgs::Output> outputs_of) {
  const LinearArgs::Output& output = outputs_of.front();
  const std::span<const LinearArgs::Output> siblings = outputs_of.subspan(1);
  const bool gate = args.gate != LinearArgs::Gate::none;
  uint32_t all = 0;
  for (const LinearArgs::Output& one : outputs_of) all += one.p.out_features;
  uint32_t rows = 1;
  while (rows < std::min(output.p.n_rows, uint32_t{LinearFewLaunch::kRows})) rows *= 2;
  // Twice the outputs read x half as often, which counts where it is long or read twice; but a small layer has then too
  // few threadgroups. A gate has two weights.
  const bool wide = gate || output.p.n_rows > LinearFewLaunch::kRows ||
                    (output.p.n_rows > LinearFewLaunch::kRows / 2 && all >= LinearFewLaunch::kWideFrom);
  const uint32_t outputs = wide ? 32 : 16;
  Grid grid{groups(output.p.n_rows, LinearFewLaunch::kRows), 0};
  for (const LinearArgs::Output& one : outputs_of) grid.y += groups(one.p.out_features, outputs / (gate ? 2 : 1));
  Dispatch launch("linear_few", grid, LinearFewLaunch::kThreads);
  of_format(launch, output);
  launch.of(std::to_string(outputs).c_str()).of(std::to_string(rows).c_str());
  bind_fused(launch, args, output, siblings);
  bind_siblings(launch, args, output, siblings);
  double bytes = 0, all_products = 0;
  for (const LinearArgs::Output& one : outputs_of) bytes += weight_bytes(one), all_products += products(one);
  const double weights = gate ? 2 : 1;
  return launch.costs(weights * bytes * grid.x, weights * all_products);
}

}  // namespace foundry
