// What linear_tiles.metal stages: blocks of kBlock along k of kSide rows of x and of W. A thread stages a quarter of a
// block, eight neighbours, of each of kShares rows; four neighbours of the threadgroup have a whole block.
#pragma once
#include "arranged_super.h"
#include "tile.h"

constant constexpr uint kSide = LinearTilesLaunch::kSide, kThreads = LinearTilesLaunch::kThreads;
constant constexpr uint kBlock = 32, kShares = kSide * 4 / kThreads;

/// The rows of a thread's share.
template <class Format>
struct SharedRows {
  RowOf<Format> rows[kShares];

  METAL_FUNC void begin(device const uchar* matrix, uint first, uint n, uint width, uint index) {
    UNROLL
    for (uint s = 0; s < kShares; ++s)  // past the last row the last one again, and nobody sees it
      rows[s].begin(matrix, min(first + place(s, index), n - 1), n, width);
  }
  static METAL_FUNC uint place(uint s, uint index) { return s * (kThreads / 4) + index / 4; }
};

/// Where a simdgroup's quarter is in the threadgroup's square, and who asks.
struct Quarter {
  uint row, output, lane;
};
