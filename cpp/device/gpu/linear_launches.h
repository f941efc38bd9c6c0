// The launches of linear: of few rows, with what is fused, or of many, with matrix tiles.
#pragma once
#include "device/gpu/kernel_queue.h"

namespace foundry {

/// From how many rows on linear layers are for matrix tiles.
uint32_t tile_rows(bool narrow_tiles);
/// Whether rows are so long that tiles can have them.
bool suits_tiles(const LinearParams& p);
/// One output by matrix tiles. Norm and gate are launches of their own.
Dispatch linear_tiles_launch(const LinearArgs& args, const LinearArgs::Output& output);
/// One output, or with a gate both; with the norm, where there is one.
Dispatch linear_rows_launch(const LinearArgs& args, const LinearArgs::Output& output);
/// Whether narrow tiles are for a weight: it is arranged for them, or its values lie one behind the other. Others are
/// read faster without.
bool suits_narrow_tiles(const Weight* weight);
/// The same for GPUs with narrow tiles, where weight and rows suit them.
Dispatch linear_few_launch(const LinearArgs& args, const LinearArgs::Output& output);

}  // namespace foundry
