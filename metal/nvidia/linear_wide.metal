// linear of many rows, y = x W^T (+ bias) (+ residual), on GPUs whose wide tiles multiply halves out of threadgroup
// memory, with results of f32 nevertheless: x is split beforehand into two halves that a power of two of its row brings
// near 2^15 (22 bits, and never less than 2^-39 of the row's largest), W's values or codes are one half, and what 32 of k
// give is added up in f32, times W's scale.
#include "kernel.h"
using namespace metal;
#include "wide_weights.h"

constant bool has_bias [[function_constant(0)]];
constant bool has_residual [[function_constant(1)]];

constant constexpr uint kSplitThreads = SplitRowsLaunch::kThreads;

/// A row to a threadgroup. halves: [2][n_rows][padded] of high and of low ones, zeros from `width` on. factors: the power
/// of two that a row's halves are to be multiplied by, [n_rows]; and sums of what is halved, in blocks of 32,
/// [padded / 32][n_rows].
template <int>
kernel void split_rows(device const float* in [[buffer(0)]], device uint4* halves [[buffer(1)]],
                       device float* factors [[buffer(2)]], constant SplitRowsParams& p [[buffer(3)]],
                       uint row [[threadgroup_position_in_grid]], uint index [[thread_index_in_threadgroup]],
                       uint simdgroup [[simdgroup_index_in_threadgroup]], uint lane [[thread_index_in_simdgroup]]) {
  threadgroup float found[kSplitThreads / 32];
  device const float* x = in + ulong(row) * p.width;
  float most = 0.0f;
  for (uint k = index; k < p.width; k += kSplitThreads) most = fmax(most, abs(x[k]));
  most = simd_max(most);
  if (lane == 0) found[simdgroup] = most;
  threadgroup_barrier(mem_flags::mem_threadgroup);
  UNROLL
  for (uint i = 0; i < kSplitThreads / 32; ++i) most = fmax(most, found[i]);
  const Lift lift = lift_of(most);
  if (index == 0) factors[row] = lift.down;
  const uint pieces = p.padded / 8;
  for (uint from = 0; from < pieces; from += kSplitThreads) {  // no lane leaves before the others
    const uint piece = from + index;
    float v[8];
    UNROLL
    for (uint i = 0; i < 8; ++i) v[i] = piece * 8 < p.width ? x[piece * 8 + i] * lift.up : 0.0f;
    float sum = 0.0f;
    UNROLL
    for (uint i = 0; i < 8; ++i) sum += v[i];
    sum += simd_shuffle_xor(sum, ushort(1));
    sum += simd_shuffle_xor(sum, ushort(2));
    if (piece >= pieces) continue;
    if (piece % 4 == 0) factors[ulong(1 + piece / 4) * p.n_rows + row] = sum;
    UNROLL
    for (uint part = 0; part < 2; ++part) {
      uint words[4];
      UNROLL
      for (uint i = 0; i < 4; ++i) {
        words[i] = two_halves(v[2 * i], v[2 * i + 1]);
        const float2 taken = wide_halves(words[i]);
        v[2 * i] -= taken.x, v[2 * i + 1] -= taken.y;
      }
      halves[(ulong(part) * p.n_rows + row) * pieces + piece] = uint4(words[0], words[1], words[2], words[3]);
    }
  }
}

/// Puts a step of x into threadgroup memory, and multiplies.
template <class Format, uint kSide>
struct WideRoom {
  using Weights = WideWeights<Format, kSide, kSide * 2>;
  enum : uint { kHalves = Weights::kHalves, kThreads = kSide * 2 };
  using Room = LinearWideRoom<kSide, kHalves>;
  static_assert(uint(kThreads) == uint(Room::kThreads), "one number of threads");
  threadgroup uint4* room;

  METAL_FUNC threadgroup uint4* x(uint step) const { return room + step % Room::kSlots * Room::kSlot; }
  METAL_FUNC threadgroup uint4* w(uint step) const { return x(step) + Room::kX; }
  METAL_FUNC threadgroup float* factors(uint step) const { return (threadgroup float*)(w(step) + Room::kW); }

  METAL_FUNC void copy_x(device const uint4* halves, uint first, uint n_rows, uint pieces, uint step,
                         uint index) const {
    const uint piece = index % 8;
    UNROLL
    for (uint s = 0; s < kSide * 8 / kThreads; ++s) {
      const uint row = s * (kThreads / 8) + index / 8;
      UNROLL
      for (uint part = 0; part < 2; ++part)
        copy_later<16>(x(step) + part * kSide * 8 + wide_piece(row, piece),
                       halves + (ulong(part) * n_rows + min(first + row, n_rows - 1)) * pieces + step * 8 + piece,
                       true);
    }
  }
  /// Sixteen of k, with kSixteens: the low halves first.
  METAL_FUNC void multiply_part(thread WideSum<kSide>& sum, uint step, uint part, uint simdgroup, uint lane) const {
    threadgroup const uint4* high = x(step) + simdgroup / 4 * 64 * 8;
    wide_begin();
    wide_multiply_add<kSide>(sum, high + kSide * 8, w(step), part, true, simdgroup, lane);
    wide_multiply_add<kSide>(sum, high, w(step), part, false, simdgroup, lane);
    wide_begun();
  }
  /// A block's 32 of k: the low halves first. The product of two low ones is left out.
  METAL_FUNC void multiply(thread WideSum<kSide>& sum, uint step, uint block, uint simdgroup, uint lane) const {
    threadgroup const uint4* high = x(step) + simdgroup / 4 * 64 * 8;
    threadgroup const uint4* low = high + kSide * 8;
    wide_begin();
    UNROLL
    for (uint i = 0; i < 2; ++i) {
      const uint part = block * 2 + i;
      wide_multiply_add<kSide>(sum, low, w(step), part, i == 0, simdgroup, lane);
      if (kHalves == 2) wide_multiply_add<kSide>(sum, high, w(step) + kSide * 8, part, false, simdgroup, lane);
    }
    UNROLL
    for (uint i = 0; i < 2; ++i) wide_multiply_add<kSide>(sum, high, w(step), block * 2 + i, false, simdgroup, lane);
    wide_begun();
  }
  /// Adds what a block gave, or sixteen of k, where that has ended.
  METAL_FUNC void add(thread float* to, thread const WideSum<kSide>& sum, device const float* sums, uint n_rows,
                      uint row, uint step, uint block, uint lane) const {
    threadgroup const float* scales = factors(step) + block * kSide + wide_column(lane);
    float of_x[2] = {0.0f, 0.0f};
    if (Weights::kMinimum) {
      UNROLL
      for (uint i = 0; i < 2; ++i) of_x[i] = sums[ulong(step * 2 + block) * n_rows + min(row + 8 * i, n_rows - 1)];
    }
    UNROLL
    for (uint i = 0; i < kSide / 2; ++i) {
      const uint column = i / 4 * 8 + i % 2;
      if (Weights::kScaled)
        to[i] = fma(sum.x[i], scales[column], to[i]);
      else
        to[i] += sum.x[i];
      if (Weights::kMinimum) to[i] = fma(of_x[i / 2 % 2], scales[2 * kSide + column], to[i]);
    }
  }
};

/// Grid: threadgroups of kSide rows and outputs, so that those of kBand times as many rows go over all outputs
/// together: then they find x where caches are. Four simdgroups have 64 rows.
template <class Format, uint kSide>
kernel void linear_wide(device const uint4* halves [[buffer(0)]], device const float* factors [[buffer(1)]],
                        device const uchar* weight [[buffer(2)]], device const float* bias [[buffer(3)]],
                        device const float* residual [[buffer(4)]], device float* out [[buffer(5)]],
                        constant LinearParams& p [[buffer(6)]], threadgroup uint4* room [[threadgroup(0)]],
                        uint group [[threadgroup_position_in_grid]], uint index [[thread_index_in_threadgroup]],
                        uint simdgroup [[simdgroup_index_in_threadgroup]], uint lane [[thread_index_in_simdgroup]]) {
  const uint row_groups = (p.n_rows + kSide - 1) / kSide, output_groups = (p.out_features + kSide - 1) / kSide;
  const uint band = group / (LinearWideLaunch::kBand * output_groups) * LinearWideLaunch::kBand;
  const uint in_band = min(uint(LinearWideLaunch::kBand), row_groups - band), at_band = group - band * output_groups;
  const uint first_row = (band + at_band % in_band) * kSide, first_output = at_band / in_band * kSide;
  const uint steps = (p.in_features + kWideStep - 1) / kWideStep, pieces = steps * 8;
  const uint row = first_row + simdgroup / 4 * 64 + wide_row(simdgroup, lane);
  device const float* sums = factors + p.n_rows;
  constexpr bool kSixteens = WideRoom<Format, kSide>::Weights::kSixteens;
  constexpr uint kAhead = WideRoom<Format, kSide>::Room::kSlots - 1;

  typename WideRoom<Format, kSide>::Weights weights;
  weights.matrix = weight, weights.first = first_output, weights.n = p.out_features, weights.width = p.in_features;
  WideRoom<Format, kSide> of;
  of.room = room;
  float y[kSide / 2];
  UNROLL
  for (uint i = 0; i < kSide / 2; ++i) y[i] = 0.0f;
  UNROLL
  for (uint step = 0; step < kAhead; ++step) {
    if (step < steps) {
      of.copy_x(halves, first_row, p.n_rows, pieces, step, index);
      weights.read(step, index);
      weights.put(of.w(step), of.factors(step), step, index);
    }
    copies_begun();
  }
  // All products of a step end in it, so behind a barrier the slot of the step before is free.
  for (uint step = 0; step < steps; ++step) {
    WideSum<kSide> first, second;
    copies_done<kAhead - 1>();
    wide_written();
    threadgroup_barrier(mem_flags::mem_threadgroup);
    const bool more = step + kAhead < steps;
    if (more) weights.read(step + kAhead, index);
    if (kSixteens) {
      of.multiply_part(first, step, 0, simdgroup, lane);
      of.multiply_part(second, step, 1, simdgroup, lane);
    } else {
      of.multiply(first, step, 0, simdgroup, lane);
      of.multiply(second, step, 1, simdgroup, lane);
    }
    if (more) {
      of.copy_x(halves, first_row, p.n_rows, pieces, step + kAhead, index);
      weights.put(of.w(step + kAhead), of.factors(step + kAhead), step + kAhead, index);
    }
    copies_begun();
    wide_done<1>(first);
    of.add(y, first, sums, p.n_rows, row, step, 0, lane);
    if (kSixteens) of.multiply_part(first, step, 2, simdgroup, lane);
    wide_done<kSixteens ? 1 : 0>(second);
    of.add(y, second, sums, p.n_rows, row, step, 1, lane);
    if (!kSixteens) continue;
    of.multiply_part(second, step, 3, simdgroup, lane);
    wide_done<1>(first);
    of.add(y, first, sums, p.n_rows, row, step, 2, lane);
    wide_done<0>(second);
    of.add(y, second, sums, p.n_rows, row, step, 3, lane);
  }

  UNROLL
  for (uint half_row = 0; half_row < 2; ++half_row) {
    const uint r = row + half_row * 8;
    if (r >= p.n_rows) continue;
    const float scale = factors[r];
    UNROLL
    for (uint i = 0; i < kSide / 2; ++i) {
      const uint o = first_output + wide_column(lane) + i / 4 * 8 + i % 2;
      if (i / 2 % 2 != half_row || o >= p.out_features) continue;
      const ulong at = ulong(r) * p.out_features + o;
      float value = y[i] * scale;
      if (has_bias) value += bias[o];
      if (has_residual) value += residual[at];
      out[at] = value;
    }
  }
}

#define instantiate_wide(name, Format)                                      \
  instantiate_kernel("linear_wide_" name "_128", linear_wide, Format, 128); \
  instantiate_kernel("linear_wide_" name "_64", linear_wide, Format, 64);
#define instantiate_wide_format(name, Name, halves) of_part(name, instantiate_wide(#name, Name))
FOUNDRY_WIDE(instantiate_wide_format)
#define instantiate_wide_arranged(name, Name) of_part(name, instantiate_wide(#name "_arranged", Arranged<Name>))
FOUNDRY_ARRANGED(instantiate_wide_arranged)
of_part(rest, instantiate_kernel("split_rows", split_rows, 0);)
