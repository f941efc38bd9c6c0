// The launches of linear: of few rows, with what is fused, or of many, with matrix tiles.
#pragma once
#include "device/gpu/kernel_queue.h"

namespace foundry {

/// Whether rows so long, and so many of them, are for matrix tiles.
bool takes_tiles(const LinearParams& p);
/// One output by matrix tiles. Norm and gate are launches of their own.
Dispatch linear_tiles_launch(const LinearArgs& args, const LinearArgs::Output& output);
/// One output, or with a gate both; with the norm, where there is one.
Dispatch linear_rows_launch(const LinearArgs& args, const LinearArgs::Output& output);

}  // namespace foundry
