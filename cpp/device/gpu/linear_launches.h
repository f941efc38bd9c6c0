// The launches of linear: of few rows, with what is fused, or of many, with matrix tiles.
#pragma once
#include <span>

#include "device/gpu/kernel_queue.h"
#include "launch.h"

namespace foundry {

/// From how many rows on linear layers are for matrix tiles.
uint32_t tile_rows(bool narrow_tiles);
/// Whether rows are so long that tiles can have them.
bool suits_tiles(const LinearParams& p);
/// One output by matrix tiles. Norm and gate are launches of their own.
Dispatch linear_tiles_launch(const LinearArgs& args, const LinearArgs::Output& output);
/// Whether a weight has kernels with wide tiles, on GPUs that have such.
bool suits_wide_tiles(const Weight* weight);
/// What split_rows_launch fills for them: halves, and behind them factors (linear_wide.metal).
struct SplitRows {
  static uint64_t padded(uint64_t width) {
    return (width + SplitRowsLaunch::kMultiple - 1) / SplitRowsLaunch::kMultiple * SplitRowsLaunch::kMultiple;
  }
  static uint64_t factors_at(uint64_t rows, uint64_t width) { return rows * padded(width) * 2 * sizeof(uint16_t); }
  static uint64_t bytes(uint64_t rows, uint64_t width);
  static SplitRowsParams params(const LinearParams& of) {
    return {of.n_rows, of.in_features, static_cast<uint32_t>(padded(of.in_features))};
  }
};
Dispatch split_rows_launch(const SplitRowsParams& p, Span in, Span room);
/// One output by wide tiles, of rows that are split. Norm and gate are launches of their own.
Dispatch linear_wide_launch(const LinearArgs& args, const LinearArgs::Output& output, Span split);
/// One output, or with a gate both; with the norm, where there is one.
Dispatch linear_rows_launch(const LinearArgs& args, const LinearArgs::Output& output);
/// Whether narrow tiles are for a weight: it is arranged for them, or its values lie one behind the other. Others are
/// read faster without.
bool suits_narrow_tiles(const Weight* weight);
/// The same for GPUs with narrow tiles, where weights and rows suit them; or all outputs of siblings.
Dispatch linear_few_launch(const LinearArgs& args, std::span<const LinearArgs::Output> outputs);
/// Whether the outputs are siblings that one of those has: two or three, of one kind.
bool are_of_one_launch(const LinearArgs& args);

}  // namespace foundry
