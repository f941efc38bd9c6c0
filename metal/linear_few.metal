// linear of a few rows, y = x W^T (+ bias) (+ residual), with matrix tiles of halves: eight rows cost 1.1 to 1.7
// times what one costs, and a row has the same bits whatever is multiplied with it. Fused with it, where asked: the rms_norm of x,
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
constant bool has_siblings [[function_constant(5)]];  // one or two more layers read the same x

/// What a block of x gives with one of each of 16 rows of W. Elements of a tile whose column is kColumns or behind are
/// left alone: nobody sees them.
template <class Weights, uint kColumns, bool kBytes>
struct FewProducts;

template <class Weights, uint kColumns>
struct FewProducts<Weights, kColumns, false> {
  NarrowRight high[2], low[2];
  float whole[4];

  METAL_FUNC void begin(thread const FewRows<Weights, kColumns, false>& x, uint block, uint) {
    x.load(block, high, low);
    if (Weights::kMinimum) add_up(whole);
  }
  METAL_FUNC void add(thread float* sums, thread const typename Weights::Held& held, uint b,
                      thread const float (&scale)[2]) const {
    uint words[2][4], rest[2][4];
    Affine of[2];
    UNROLL
    for (uint i = 0; i < 2; ++i) of[i] = Weights::halves(held, i, b, words[i], rest[i]);
    NarrowSum products;
    tile_clear(products);
    UNROLL
    for (uint s = 0; s < 2; ++s) multiply(products, words, s, low[s]);
    UNROLL
    for (uint s = 0; s < 2 && Weights::kHalves == 2; ++s) multiply(products, rest, s, high[s]);
    UNROLL
    for (uint s = 0; s < 2; ++s) multiply(products, words, s, high[s]);
    float y[4];
    tile_get(products, y);
    UNROLL
    for (uint i = 0; i < 4; ++i) {
      if (i % 2 >= kColumns) continue;
      sums[i] = fma(y[i] * scale[i % 2], of[i / 2].scale, sums[i]);
      if (Weights::kMinimum) sums[i] = fma(whole[i] * scale[i % 2], of[i / 2].minimum, sums[i]);
    }
  }

 private:
  static METAL_FUNC void multiply(thread NarrowSum& sum, thread const uint (&words)[2][4], uint s,
                                  thread const NarrowRight& right) {
    TileLeft<half, 16> left;
    tile_set(left, uint4(words[0][2 * s], words[1][2 * s], words[0][2 * s + 1], words[1][2 * s + 1]));
    tile_multiply_add(sum, left, right);
  }
  /// The block's sums of x.
  METAL_FUNC void add_up(thread float* to) const {
    const uint ones[2][4] = {{0x3c003c00u, 0x3c003c00u, 0x3c003c00u, 0x3c003c00u},
                             {0x3c003c00u, 0x3c003c00u, 0x3c003c00u, 0x3c003c00u}};
    NarrowSum products;
    tile_clear(products);
    UNROLL
    for (uint s = 0; s < 2; ++s) multiply(products, ones, s, low[s]);
    UNROLL
    for (uint s = 0; s < 2; ++s) multiply(products, ones, s, high[s]);
    tile_get(products, to);
  }
};

template <class Weights, uint kColumns>
struct FewProducts<Weights, kColumns, true> {
  ByteRight right;
  float whole[2];
  uint lane;

  METAL_FUNC void begin(thread const FewRows<Weights, kColumns, true>& x, uint block, uint of_lane) {
    lane = of_lane, right = x.load(block);
    UNROLL
    for (uint i = 0; Weights::kMinimum && i < 2; ++i)
      whole[i] = x.factors.get(UnitFactors<kColumns>::kSums, block, i, lane);
  }
  METAL_FUNC void add(thread float* sums, thread const typename Weights::Held& held, uint b,
                      thread const float (&scale)[2]) const {
    uint first[2], second[2];
    Affine of[2];
    UNROLL
    for (uint i = 0; i < 2; ++i) of[i] = Weights::bytes(held, i, b, first[i], second[i]);
    const uint4 left = uint4(first[0], first[1], second[0], second[1]);
    ByteSum products;
    if (Weights::kSixteens) {
      tile_multiply_half<0>(products, left, right, lane);
      add_scaled(sums, products, scale, of[0].scale, of[1].scale);
      tile_multiply_half<1>(products, left, right, lane);
      add_scaled(sums, products, scale, Weights::scale_of(held, 0, b, 1), Weights::scale_of(held, 1, b, 1));
      return;
    }
    tile_multiply(products, left, right, lane);
    add_scaled(sums, products, scale, of[0].scale, of[1].scale);
    UNROLL
    for (uint i = 0; Weights::kMinimum && i < 4; ++i)
      if (i % 2 < kColumns) sums[i] = fma(whole[i % 2] * scale[i % 2], of[i / 2].minimum, sums[i]);
  }

 private:
  static METAL_FUNC void add_scaled(thread float* sums, thread const ByteSum& products, thread const float (&of_x)[2],
                                    float first, float second) {
    UNROLL
    for (uint i = 0; i < 4; ++i)
      if (i % 2 < kColumns) sums[i] = fma(tile_value(products, i) * of_x[i % 2], i < 2 ? first : second, sums[i]);
  }
};

/// The sums of a simdgroup: of kTiles times 16 outputs and 8 rows, a lane's four of each tile. With a gate every other
/// tile is of `up`. W is copied kAhead steps before it is wanted, a step being Weights::kBlocks of each tile.
template <class Weights, uint kTiles, uint kColumns>
struct FewSums {
  using Factors = UnitFactors<kColumns>;
  enum : uint { kSteps = 8 / Weights::kBlocks };  // of a bundle of eight blocks
  enum : uint {
    kCopies = LinearFewLaunch::kCopies / kTiles,
    kAhead = uint(kSteps) < kCopies ? uint(kSteps) : kCopies  // more than these wait for each other
  };
  enum : uint { kStage = Weights::kWords * kTiles, kStaged = uint(kAhead) * Weights::kWords * kTiles };
  enum : uint { kWords = uint(kStaged) > kTiles * 32 ? uint(kStaged) : kTiles * 32 };  // of threadgroup memory
  Weights weights[kTiles];
  threadgroup uint4* copies;
  uint lane;
  float sums[kTiles][4], squares[2];

  METAL_FUNC void begin(device const uchar* weight, device const uchar* up, uint first, uint n, uint width, uint block,
                        uint last) {
    squares[0] = squares[1] = 0.0f;
    UNROLL
    for (uint m = 0; m < kTiles; ++m) {
      weights[m].begin(has_gate && m % 2 == 1 ? up : weight, first + (has_gate ? m / 2 : m) * 16, n, width, block, last,
                       lane);
      UNROLL
      for (uint i = 0; i < 4; ++i) sums[m][i] = 0.0f;
    }
  }
  METAL_FUNC void copy(uint step) {
    UNROLL
    for (uint m = 0; m < kTiles; ++m) weights[m].copy(copies + step % kAhead * kStage + m * Weights::kWords, lane);
    copies_begun();
  }
  /// A step of a bundle.
  template <class Rows>
  METAL_FUNC void add(uint step, thread Rows& x) {
    typename Weights::Held held[kTiles];
    copies_done<kAhead - 1>();
    simdgroup_barrier(mem_flags::mem_threadgroup);
    UNROLL
    for (uint m = 0; m < kTiles; ++m)
      weights[m].take(held[m], copies + step % kAhead * kStage + m * Weights::kWords, lane);
    simdgroup_barrier(mem_flags::mem_threadgroup);
    copy(step);
    UNROLL
    for (uint b = 0; b < Weights::kBlocks; ++b) {
      const uint block = step * Weights::kBlocks + b;  // of the bundle
      if (block % (8 / kColumns) == 0) x.convert(has_norm);
      UNROLL
      for (uint i = 0; has_norm && i < 2; ++i) squares[i] += x.factors.get(Factors::kSquares, block, i, lane);
      const float scale[2] = {x.factors.get(Factors::kScales, block, 0, lane),
                              x.factors.get(Factors::kScales, block, 1, lane)};
      FewProducts<Weights, kColumns, Weights::kBytes> products;
      products.begin(x, block, lane);
      UNROLL
      for (uint m = 0; m < kTiles; ++m) products.add(sums[m], held[m], b, scale);
    }
  }
};

/// Which layer of siblings a threadgroup has, and which of its groups of outputs.
struct Sibling {
  uint index, group, out_features;
  static METAL_FUNC Sibling of(uint group, uint outputs, uint first, uint second, uint third) {
    const uint n = (first + outputs - 1) / outputs, with_second = n + (second + outputs - 1) / outputs;
    if (group < n) return Sibling{0, group, first};
    if (group < with_second) return Sibling{1, group - n, second};
    return Sibling{2, group - with_second, third};
  }
};

/// Grid: (groups of 8 rows; groups of kTiles * 16 outputs, or of half as many with a gate), so that those who read the
/// same weights run together. Threads: kSimdgroups * 32. The simdgroups share k, and their sums are added in their
/// order. `up` and `third`, `bias_1`, `out_1`, `p_1` and so on are siblings', whose groups lie one behind the other.
template <class Format, uint kTiles, uint kColumns>
kernel void linear_few(device const float* in [[buffer(0)]], device const uchar* weight [[buffer(1)]],
                       device const float* bias [[buffer(2)]], device const float* residual [[buffer(3)]],
                       device float* out [[buffer(4)]], constant LinearParams& p [[buffer(5)]],
                       device const float* norm [[buffer(6)]], device const uchar* up [[buffer(7)]],
                       constant float& eps [[buffer(8)]], device const uchar* third [[buffer(9)]],
                       device const float* bias_1 [[buffer(10)]], device const float* bias_2 [[buffer(11)]],
                       device float* out_1 [[buffer(12)]], device float* out_2 [[buffer(13)]],
                       constant LinearParams& p_1 [[buffer(14)]], constant LinearParams& p_2 [[buffer(15)]],
                       uint3 group [[threadgroup_position_in_grid]], uint index [[thread_index_in_threadgroup]],
                       uint simdgroup [[simdgroup_index_in_threadgroup]], uint lane [[thread_index_in_simdgroup]]) {
  using Rows = FewRows<FewWeights<Format>, kColumns, FewWeights<Format>::kBytes>;
  using Factors = UnitFactors<kColumns>;
  using Sums = FewSums<FewWeights<Format>, kTiles, kColumns>;
  threadgroup uint4 copies[kSimdgroups * Sums::kWords];  // of W, and then the sums
  threadgroup uint4 words[kSimdgroups * Rows::kWords];
  threadgroup float factors[kSimdgroups * Factors::kFactors];
  constexpr uint kOutputs = kTiles * 16;
  Sibling own{0, group.y, p.out_features};
  if (has_siblings) own = Sibling::of(group.y, kOutputs, p.out_features, p_1.out_features, p_2.out_features);
  device const uchar* own_weight = own.index == 0 ? weight : own.index == 1 ? up : third;
  device const float* own_bias = own.index == 0 ? bias : own.index == 1 ? bias_1 : bias_2;
  device float* own_out = own.index == 0 ? out : own.index == 1 ? out_1 : out_2;
  const uint first = own.group * kOutputs / (has_gate ? 2 : 1), first_row = group.x * kRowsOfTile;

  // The simdgroups have as many bundles each, the last ones fewer.
  const uint bundles = (p.in_features + 255) / 256, each = (bundles + kSimdgroups - 1) / kSimdgroups;
  const uint begin = min(simdgroup * each, bundles), end = min(begin + each, bundles);
  Sums sums;
  sums.copies = copies + simdgroup * Sums::kWords, sums.lane = lane;
  sums.begin(own_weight, up, first, own.out_features, p.in_features, begin * 8, end * 8);
  UNROLL
  for (uint step = 0; step < Sums::kAhead; ++step) sums.copy(step);
  WAIT_FOR_INPUTS();
  Rows x;
  x.words = words + simdgroup * Rows::kWords, x.factors.room = factors + simdgroup * Factors::kFactors, x.lane = lane;
  x.reader.begin(in + ulong(first_row) * p.in_features, norm, min(p.n_rows - first_row, kRowsOfTile), p.in_features,
                 begin * 8, lane);
  x.reader.read(has_norm);
  for (uint bundle = begin; bundle < end; ++bundle) {
    UNROLL
    for (uint step = 0; step < Sums::kSteps; ++step) sums.add(step, x);
  }
  copies_done<0>();
  simdgroup_barrier(mem_flags::mem_threadgroup);

  UNROLL
  for (uint m = 0; m < kTiles; ++m) {
    thread const float* y = sums.sums[m];
    sums.copies[m * 32 + lane] =
        uint4(as_type<uint>(y[0]), as_type<uint>(y[1]), as_type<uint>(y[2]), as_type<uint>(y[3]));
  }
  if (has_norm && tile_row(lane) == 0) {
    UNROLL
    for (uint i = 0; i < 2; ++i) x.factors.room[tile_column(lane) + i] = sums.squares[i];
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  threadgroup const float* parts = (threadgroup const float*)copies;
  for (uint e = index; e < kTiles * 128 / (has_gate ? 2 : 1); e += kSimdgroups * 32) {
    const uint i = e % 4, of_lane = e / 4 % 32, m = e / 128, column = tile_column(of_lane) + i % 2;
    const uint o = first + m * 16 + tile_row(of_lane) + i / 2 * 8, row = first_row + column;
    if (o >= own.out_features || row >= p.n_rows) continue;
    float y[2] = {0.0f, 0.0f}, squares = 0.0f;
    UNROLL
    for (uint s = 0; s < kSimdgroups; ++s) {
      UNROLL
      for (uint g = 0; g < (has_gate ? 2u : 1u); ++g)
        y[g] += parts[(s * Sums::kWords + (has_gate ? 2 * m + g : m) * 32 + of_lane) * 4 + i];
      if (has_norm) squares += factors[s * Factors::kFactors + column];
    }
    if (has_norm) {
      const float scale = 1.0f / precise::sqrt(squares / float(p.in_features) + eps);
      y[0] *= scale, y[1] *= scale;
    }
    if (has_gate) y[0] = (gate_is_gelu ? gated_by<Gelu>(y[0]) : gated_by<Silu>(y[0])) * y[1];
    const ulong at = ulong(row) * own.out_features + o;
    if (has_bias) y[0] += own_bias[o];
    if (has_residual) y[0] += residual[at];
    own_out[at] = y[0];
  }
}

#define instantiate_few(name, Format, outputs, rows) \
  instantiate_kernel("linear_few_" name "_" #outputs "_" #rows, linear_few, Format, outputs / 16, rows)
#define instantiate_linear_few(name, Name, number, elements, bytes, kind, weight, ...) \
  FOUNDRY_PLAIN_##kind(of_part(name, FOUNDRY_FEW_SHAPES(instantiate_few, #name, Name)))
FOUNDRY_FORMATS(instantiate_linear_few)
#define instantiate_arranged(name, Name) \
  of_part(name, FOUNDRY_FEW_SHAPES(instantiate_few, #name "_arranged", Arranged<Name>))
FOUNDRY_ARRANGED(instantiate_arranged)
