// linear of many rows, y = x W^T (+ bias) (+ residual), with matrix tiles of floats, or of halves where a GPU has no
// others.
#include "kernel.h"
using namespace metal;
#include "linear_floats.h"
#include "linear_halves.h"

constant bool has_bias [[function_constant(0)]];
constant bool has_residual [[function_constant(1)]];

/// Grid: (groups of kSide outputs, groups of kSide rows). A simdgroup has a quarter: 32 x 32.
template <class Blocks>
kernel void linear_tiles(device const float* in [[buffer(0)]], device const uchar* weight [[buffer(1)]],
                         device const float* bias [[buffer(2)]], device const float* residual [[buffer(3)]],
                         device float* out [[buffer(4)]], constant LinearParams& p [[buffer(5)]],
                         uint3 group [[threadgroup_position_in_grid]], uint index [[thread_index_in_threadgroup]],
                         uint simdgroup [[simdgroup_index_in_threadgroup]], uint lane [[thread_index_in_simdgroup]]) {
  threadgroup uint4 staged_x[Blocks::kWordsX];
  threadgroup uint4 staged_w[Blocks::kWordsW];
  threadgroup float factors[Blocks::kFactors];
  const uint first_row = group.y * kSide, first_output = group.x * kSide;
  const Quarter of{simdgroup / 2 * 32, simdgroup % 2 * 32, lane};
  const bool busy = first_row + of.row < p.n_rows && first_output + of.output < p.out_features;

  Blocks blocks;
  blocks.begin(in, first_row, weight, first_output, p, index);
  blocks.read(0, p.in_features, index);
  for (uint k = 0; k < p.in_features; k += kBlock) {
    blocks.prepare();
    threadgroup_barrier(mem_flags::mem_threadgroup);
    blocks.store(staged_x, staged_w, factors, index);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    blocks.read(k + kBlock, p.in_features, index);  // the next block's reads overlap with this one's products
    if (busy) blocks.multiply(staged_x, staged_w, factors, of);
  }

  UNROLL
  for (uint t = 0; t < 4; ++t) {
    float y[8];
    blocks.get(t / 2, t % 2, y);
    UNROLL
    for (uint i = 0; i < 8; ++i) {
      const uint r = first_row + of.row + t / 2 * 16 + tile_row(lane) + 8 * (i / 4);
      const uint o = first_output + of.output + t % 2 * 16 + tile_column(lane) + 8 * (i / 2 % 2) + i % 2;
      if (r >= p.n_rows || o >= p.out_features) continue;
      const ulong at = ulong(r) * p.out_features + o;
      if (has_bias) y[i] += bias[o];
      if (has_residual) y[i] += residual[at];
      out[at] = y[i];
    }
  }
}

#ifdef METAL_TILES
#define FOUNDRY_BLOCKS HalfBlocks
#else
#define FOUNDRY_BLOCKS FloatBlocks
#endif
#define instantiate_linear_tiles(name, Name, number, elements, bytes, kind, weight, ...) \
  of_part(name, FOUNDRY_GPU_##weight(instantiate_kernel("linear_tiles_" #name, linear_tiles, FOUNDRY_BLOCKS<Name>)))
FOUNDRY_FORMATS(instantiate_linear_tiles)
#define instantiate_arranged_tiles(name, Name) \
  of_part(name, instantiate_kernel("linear_tiles_" #name "_arranged", linear_tiles, FOUNDRY_BLOCKS<Arranged<Name>>))
FOUNDRY_ARRANGED(instantiate_arranged_tiles)
