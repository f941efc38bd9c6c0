// linear of a few rows, y = x W^T (+ bias) (+ residual), with matrix tiles of halves: eight rows cost about what one
// costs, and a row has the same bits whatever is multiplied with it. Fused with it, where asked: the rms_norm of x,
// whose scale multiplies the sums, and the gate of a feed-forward layer. GPUs that multiply floats as fast have no use
// for it.
#include "kernel.h"
using namespace metal;
#include "few_rows.h"
#include "gates.h"

constant bool has_bias [[function_constant(0)]];
constant bool has_residual [[function_constant(1)]];
constant bool has_norm [[function_constant(2)]];
constant bool has_gate [[function_constant(3)]];  // y = gate(x W^T) * (x up^T)
constant bool gate_is_gelu [[function_constant(4)]];

/// The sums of a simdgroup: of kOutputTiles times 16 outputs and kRowTiles times 8 rows, a lane's four of each tile.
/// With a gate every other tile is of `up`.
template <class Weights, uint kOutputTiles, uint kRowTiles>
struct FewSums {
  enum : uint { kAhead = Weights::kAhead, kSteps = 8 / Weights::kBlocks };  // steps of a bundle of eight blocks
  device const uchar* rows_of[kOutputTiles][2];
  typename Weights::Held held[kAhead][kOutputTiles][2];
  float sums[kOutputTiles][kRowTiles][4], squares[kRowTiles][2];

  METAL_FUNC void begin(device const uchar* weight, device const uchar* up, uint first, uint n, ulong stride,
                        uint row) {
    UNROLL
    for (uint m = 0; m < kOutputTiles; ++m) {
      UNROLL
      for (uint i = 0; i < 2; ++i) {  // past the last output the last one again, and nobody sees it
        const uint output = min(first + (has_gate ? m / 2 : m) * 16 + row + i * 8, n - 1);
        rows_of[m][i] = (has_gate && m % 2 == 1 ? up : weight) + ulong(output) * stride;
      }
      UNROLL
      for (uint t = 0; t < kRowTiles; ++t) {
        squares[t][0] = squares[t][1] = 0.0f;
        UNROLL
        for (uint i = 0; i < 4; ++i) sums[m][t][i] = 0.0f;
      }
    }
  }
  /// The first block of a step: every kSimdgroups-th bundle is this simdgroup's.
  static METAL_FUNC uint block_of(uint step, uint simdgroup) {
    return (step / kSteps * kSimdgroups + simdgroup) * 8 + step % kSteps * Weights::kBlocks;
  }
  METAL_FUNC void read(uint d, uint step, uint simdgroup, uint j, uint width) {
    UNROLL
    for (uint m = 0; m < kOutputTiles; ++m) {
      UNROLL
      for (uint i = 0; i < 2; ++i) Weights::read(held[d][m][i], rows_of[m][i], block_of(step, simdgroup), j, width);
    }
  }
  METAL_FUNC void add(uint d, uint step, uint simdgroup, thread FewRows<Weights, kRowTiles>& x) {
    const uint first = block_of(step, simdgroup);
    UNROLL
    for (uint b = 0; b < Weights::kBlocks; ++b) {
      const uint block = first + b, behind = block + x.blocks;
      if ((block & (x.blocks - 1)) == 0) x.convert(behind % 8 != 0 ? behind : behind + (kSimdgroups - 1) * 8, has_norm);
      NarrowRight high[kRowTiles][2], low[kRowTiles][2];
      float scale[kRowTiles][2], whole[kRowTiles][4];
      UNROLL
      for (uint t = 0; t < kRowTiles; ++t) {
        x.load(t, block, high[t], low[t]);
        UNROLL
        for (uint i = 0; i < 2; ++i) {
          scale[t][i] = x.scale(t, block, i);
          if (has_norm) squares[t][i] += x.squares(t, block, i);
        }
        if (Weights::kMinimum) add_up(whole[t], high[t], low[t]);
      }
      UNROLL
      for (uint m = 0; m < kOutputTiles; ++m) {
        uint words[2][4], rest[2][4];
        Affine of[2];
        UNROLL
        for (uint i = 0; i < 2; ++i) of[i] = Weights::halves(held[d][m][i], b, words[i], rest[i]);
        TileLeft<half, 16> left[2], left_low[2];
        UNROLL
        for (uint s = 0; s < 2; ++s) {
          tile_set(left[s], uint4(words[0][2 * s], words[1][2 * s], words[0][2 * s + 1], words[1][2 * s + 1]));
          if (Weights::kHalves == 2)
            tile_set(left_low[s], uint4(rest[0][2 * s], rest[1][2 * s], rest[0][2 * s + 1], rest[1][2 * s + 1]));
        }
        UNROLL
        for (uint t = 0; t < kRowTiles; ++t) {
          NarrowSum products;
          tile_clear(products);
          UNROLL
          for (uint s = 0; s < 2; ++s) tile_multiply_add(products, left[s], low[t][s]);
          UNROLL
          for (uint s = 0; s < 2 && Weights::kHalves == 2; ++s) tile_multiply_add(products, left_low[s], high[t][s]);
          UNROLL
          for (uint s = 0; s < 2; ++s) tile_multiply_add(products, left[s], high[t][s]);
          float y[4];
          tile_get(products, y);
          UNROLL
          for (uint i = 0; i < 4; ++i) {
            thread float& sum = sums[m][t][i];
            sum = fma(y[i] * scale[t][i % 2], of[i / 2].scale, sum);
            if (Weights::kMinimum) sum = fma(whole[t][i] * scale[t][i % 2], of[i / 2].minimum, sum);
          }
        }
      }
    }
  }

 private:
  /// The block's sums of x.
  static METAL_FUNC void add_up(thread float* to, thread const NarrowRight (&high)[2],
                                thread const NarrowRight (&low)[2]) {
    constexpr uint kOnes = 0x3c003c00u;
    TileLeft<half, 16> ones;
    tile_set(ones, uint4(kOnes, kOnes, kOnes, kOnes));
    NarrowSum products;
    tile_clear(products);
    UNROLL
    for (uint s = 0; s < 2; ++s) tile_multiply_add(products, ones, low[s]);
    UNROLL
    for (uint s = 0; s < 2; ++s) tile_multiply_add(products, ones, high[s]);
    tile_get(products, to);
  }
};

/// Grid: (groups of kOutputTiles * 16 outputs, or half as many with a gate; groups of kRowTiles * 8 rows). Threads:
/// kSimdgroups * 32. The simdgroups share k, and their sums are added in their order.
template <class Format, uint kOutputTiles, uint kRowTiles>
kernel void linear_few(device const float* in [[buffer(0)]], device const uchar* weight [[buffer(1)]],
                       device const float* bias [[buffer(2)]], device const float* residual [[buffer(3)]],
                       device float* out [[buffer(4)]], constant LinearParams& p [[buffer(5)]],
                       device const float* norm [[buffer(6)]], device const uchar* up [[buffer(7)]],
                       constant float& eps [[buffer(8)]], uint3 group [[threadgroup_position_in_grid]],
                       uint index [[thread_index_in_threadgroup]], uint simdgroup [[simdgroup_index_in_threadgroup]],
                       uint lane [[thread_index_in_simdgroup]]) {
  using Rows = FewRows<FewWeights<Format>, kRowTiles>;
  using Sums = FewSums<FewWeights<Format>, kOutputTiles, kRowTiles>;
  constexpr uint kTiles = kOutputTiles * kRowTiles, kJoined = kTiles * 32;
  constexpr uint kWords = kJoined > Rows::kWords ? kJoined : Rows::kWords;
  threadgroup uint4 words[kSimdgroups * kWords];  // x, and then the sums
  threadgroup float factors[kSimdgroups * Rows::kFactors];
  const uint first = group.x * (kOutputTiles * 16) / (has_gate ? 2 : 1), first_row = group.y * (kRowTiles * 8);
  const uint j = tile_column(lane) / 2;

  Sums sums;
  sums.begin(weight, up, first, p.out_features, row_bytes<Format>(p.in_features), tile_row(lane));
  const uint bundles = (p.in_features + kBundle - 1) / kBundle;
  const uint steps = (bundles + kSimdgroups - 1 - simdgroup) / kSimdgroups * Sums::kSteps;
  UNROLL
  for (uint d = 0; d < Sums::kAhead; ++d) sums.read(d, d, simdgroup, j, p.in_features);
  Rows x;
  x.words = words + simdgroup * Rows::kWords, x.factors = factors + simdgroup * Rows::kFactors;
  x.begin(in + ulong(first_row) * p.in_features, norm, min(p.n_rows - first_row, kRowTiles * 8), p.in_features,
          simdgroup * 8, lane);
  x.read(has_norm);
  for (uint step = 0; step < steps; step += Sums::kAhead) {
    UNROLL
    for (uint d = 0; d < Sums::kAhead; ++d) {
      if (step + d >= steps) continue;
      sums.add(d, step + d, simdgroup, x);
      sums.read(d, step + d + Sums::kAhead, simdgroup, j, p.in_features);
    }
  }

  threadgroup_barrier(mem_flags::mem_threadgroup);
  UNROLL
  for (uint t = 0; t < kRowTiles; ++t) {
    UNROLL
    for (uint m = 0; m < kOutputTiles; ++m) {
      thread const float* y = sums.sums[m][t];
      words[simdgroup * kJoined + (m * kRowTiles + t) * 32 + lane] =
          uint4(as_type<uint>(y[0]), as_type<uint>(y[1]), as_type<uint>(y[2]), as_type<uint>(y[3]));
    }
    if (!has_norm || tile_row(lane) != 0) continue;
    UNROLL
    for (uint i = 0; i < 2; ++i)
      factors[simdgroup * Rows::kFactors + t * 32 + tile_column(lane) + i] = sums.squares[t][i];
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  threadgroup const float* parts = (threadgroup const float*)words;
  for (uint e = index; e < kTiles * 128 / (has_gate ? 2 : 1); e += kSimdgroups * 32) {
    const uint i = e % 4, of_lane = e / 4 % 32, t = e / 128 % kRowTiles, m = e / 128 / kRowTiles;
    const uint column = tile_column(of_lane) + i % 2;
    const uint o = first + m * 16 + tile_row(of_lane) + i / 2 * 8, row = first_row + t * 8 + column;
    if (o >= p.out_features || row >= p.n_rows) continue;
    float y[2] = {0.0f, 0.0f}, squares = 0.0f;
    for (uint s = 0; s < kSimdgroups; ++s) {
      UNROLL
      for (uint g = 0; g < (has_gate ? 2u : 1u); ++g) {
        const uint tile = (has_gate ? 2 * m + g : m) * kRowTiles + t;
        y[g] += parts[(s * kJoined + tile * 32 + of_lane) * 4 + i];
      }
      if (has_norm) squares += factors[s * Rows::kFactors + t * 32 + column];
    }
    if (has_norm) {
      const float scale = 1.0f / precise::sqrt(squares / float(p.in_features) + eps);
      y[0] *= scale, y[1] *= scale;
    }
    if (has_gate) y[0] = (gate_is_gelu ? gated_by<Gelu>(y[0]) : gated_by<Silu>(y[0])) * y[1];
    const ulong at = ulong(row) * p.out_features + o;
    if (has_bias) y[0] += bias[o];
    if (has_residual) y[0] += residual[at];
    out[at] = y[0];
  }
}

#define instantiate_few(name, Format, outputs, rows) \
  instantiate_kernel("linear_few_" name "_" #outputs "_" #rows, linear_few, Format, outputs / 16, rows / 8)
#define instantiate_linear_few(name, Name, number, elements, bytes, kind, weight, ...) \
  of_part(name, FOUNDRY_GPU_##weight(FOUNDRY_FEW_SHAPES(instantiate_few, #name, Name)))
FOUNDRY_FORMATS(instantiate_linear_few)
#define instantiate_arranged(name, Name) \
  of_part(name, FOUNDRY_FEW_SHAPES(instantiate_few, #name "_arranged", Arranged<Name>))
FOUNDRY_ARRANGED(instantiate_arranged)
