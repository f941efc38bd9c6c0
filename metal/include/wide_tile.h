// Wide tiles, of 64 x kColumns over four simdgroups, whose operands of halves lie in threadgroup memory: rows of 64
// halves, left ones of x and right ones of W, which are the tile's columns. A row is eight times 16 bytes, and piece c of
// row r lies at piece c ^ (r % 8), so that rows beside each other meet in no bank. Products may end later, as copies do
// (tile.h). A lane holds kColumns / 2 elements in pairs of neighbours: element i is at row wide_row() + 8 (i / 2 % 2),
// column wide_column() + 8 (i / 4) + i % 2. Here each lane multiplies its own; GPUs that have such products bring theirs
// (METAL_WIDE_TILES).
#pragma once
#include "tile.h"

constant constexpr uint kWideStep = 64;  // halves of a row

/// Where piece c of a row lies, in 16 bytes.
METAL_FUNC uint wide_piece(uint row, uint c) { return row * 8 + (c ^ (row % 8)); }
METAL_FUNC uint wide_row(uint simdgroup, uint lane) { return simdgroup % 4 * 16 + lane / 4; }
METAL_FUNC uint wide_column(uint lane) { return lane % 4 * 2; }

#ifndef METAL_WIDE_TILES

template <uint kColumns>
struct WideSum {
  float x[kColumns / 2];
};

/// Before the first product of some; and where this thread's stores to threadgroup memory shall be seen by products that
/// come behind the next barrier.
METAL_FUNC void wide_begin() {}
METAL_FUNC void wide_written() {}
/// Sixteen along k from 16 part on; `fresh`: what was in the sum does not count. No thread reads the sum, nor writes what
/// is multiplied, before wide_done() says that the products have ended.
template <uint kColumns>
METAL_FUNC void wide_multiply_add(thread WideSum<kColumns>& sum, threadgroup const uint4* left,
                                  threadgroup const uint4* right, uint part, bool fresh, uint simdgroup, uint lane) {
  threadgroup const half* a = (threadgroup const half*)left;
  threadgroup const half* b = (threadgroup const half*)right;
  UNROLL
  for (uint i = 0; i < kColumns / 2; ++i) {
    const uint r = wide_row(simdgroup, lane) + i / 2 % 2 * 8, c = wide_column(lane) + i / 4 * 8 + i % 2;
    float s = fresh ? 0.0f : sum.x[i];
    for (uint k = part * 2; k < part * 2 + 2; ++k) {
      for (uint j = 0; j < 8; ++j) s = fma(float(a[wide_piece(r, k) * 8 + j]), float(b[wide_piece(c, k) * 8 + j]), s);
    }
    sum.x[i] = s;
  }
}
/// Ends a batch of products; behind wide_done<n>() all have ended, but for those of the newest n batches.
METAL_FUNC void wide_begun() {}
template <uint kBatches, uint kColumns>
METAL_FUNC void wide_done(thread WideSum<kColumns>& sum) {}

#endif
