// route: which experts a row goes through, and what each counts. cpp/device/route.cpp is the definition, in double.
// Compared are scores as they are, or, where a bias or groups decide, gates in two floats; of equals the lower number
// is first. Gates below 1e-38 are 0 here.
#include "kernel.h"
using namespace metal;
#include "two_floats.h"

constant bool has_bias [[function_constant(0)]];

/// By its bits: compilers of shaders may take it that there are none.
METAL_FUNC bool is_nan(float x) { return (as_type<uint>(x) & 0x7fffffffu) > 0x7f800000u; }
METAL_FUNC bool is_finite(float x) { return (as_type<uint>(x) & 0x7f800000u) != 0x7f800000u; }

/// A row's router: scores as they came, and what they become.
struct Router {
  device const float* scores;
  device const float* bias;
  float most;     // of the scores
  TwoFloats sum;  // of e^(score - most)
  bool spoilt;    // a score is not finite
  bool sigmoid;
  bool as_it_is;  // scores are compared: gates keep their order, and would round some to equals

  METAL_FUNC TwoFloats gated(uint e) const {
    if (spoilt) return two_floats(as_type<float>(0x7fc00000u));  // NaN
    const float score = scores[e];
    if (!sigmoid) return quotient_of(exp_of(sum_of(score, -most)), sum);
    const TwoFloats power = exp_of(two_floats(-abs(score)));
    return quotient_of(score < 0.0f ? power : two_floats(1.0f), sum_of(two_floats(1.0f), power));
  }
  METAL_FUNC TwoFloats rank(uint e) const {
    TwoFloats found = two_floats(scores[e]);
    if (!as_it_is) found = gated(e);
    if (has_bias) found = sum_of(found, two_floats(bias[e]));
    return is_nan(found.high) ? two_floats(-INFINITY) : found;
  }
  METAL_FUNC TwoFloats group_rank(uint group, uint each) const {
    TwoFloats first = two_floats(-INFINITY), second = two_floats(-INFINITY);
    for (uint e = group * each; e < (group + 1) * each; ++e) {
      const TwoFloats found = rank(e);
      if (is_above(found, first))
        second = first, first = found;
      else if (is_above(found, second))
        second = found;
    }
    if (each == 1 || second.high == -INFINITY) return each == 1 ? first : second;
    return sum_of(first, second);
  }
};

/// A candidate: its rank, its number, and whether there is one: 0 or 1.
struct Candidate {
  TwoFloats rank;
  uint number;
  uint is_there;
};

METAL_FUNC Candidate nobody() { return Candidate{two_floats(0.0f), 0, 0}; }

METAL_FUNC bool is_before(Candidate a, Candidate b) {
  if (a.is_there == 0 || b.is_there == 0) return a.is_there != 0;
  return is_above(a.rank, b.rank) || (is_equal(a.rank, b.rank) && a.number < b.number);
}

/// Field by field, so that no candidate lies in memory.
METAL_FUNC Candidate first_of(Candidate a, Candidate b) {
  const bool second = is_before(b, a);
  Candidate first;
  first.is_there = second ? b.is_there : a.is_there;
  first.rank.high = second ? b.rank.high : a.rank.high;
  first.rank.low = second ? b.rank.low : a.rank.low;
  first.number = second ? b.number : a.number;
  return first;
}

METAL_FUNC Candidate first_of_lanes(Candidate own) {
  UNROLL
  for (uint mask = 1; mask < 32; mask *= 2) {
    Candidate other;
    other.is_there = simd_shuffle_xor(own.is_there, ushort(mask));
    other.rank.high = simd_shuffle_xor(own.rank.high, ushort(mask));
    other.rank.low = simd_shuffle_xor(own.rank.low, ushort(mask));
    other.number = simd_shuffle_xor(own.number, ushort(mask));
    own = first_of(own, other);
  }
  return own;
}

/// Grid: rows. Threads: a simdgroup, whose lanes share the experts.
template <uint unused>
kernel void route(device const float* in [[buffer(0)]], device const float* bias [[buffer(1)]],
                  device int* chosen [[buffer(2)]], device float* weights [[buffer(3)]],
                  constant RouteParams& p [[buffer(4)]], uint3 group [[threadgroup_position_in_grid]],
                  uint lane [[thread_index_in_simdgroup]]) {
  Router row;
  row.scores = in + ulong(group.x) * p.n_experts, row.bias = bias;
  row.sigmoid = p.gate == 1, row.as_it_is = !has_bias && p.n_groups == 1;
  device int* own_chosen = chosen + ulong(group.x) * p.n_used;
  device float* own_weights = weights + ulong(group.x) * p.n_used;

  float most = -INFINITY;
  bool spoilt = false;
  for (uint e = lane; e < p.n_experts; e += 32) {
    const float score = row.scores[e];
    spoilt = spoilt || !is_finite(score);
    if (score > most) most = score;
  }
  row.spoilt = simd_any(spoilt), row.most = simd_max(most);
  row.sum = two_floats(0.0f);
  if (!row.sigmoid && !row.spoilt) {
    for (uint e = lane; e < p.n_experts; e += 32) row.sum = sum_of(row.sum, exp_of(sum_of(row.scores[e], -row.most)));
    for (uint mask = 1; mask < 32; mask *= 2) {
      TwoFloats other;
      other.high = simd_shuffle_xor(row.sum.high, ushort(mask));
      other.low = simd_shuffle_xor(row.sum.low, ushort(mask));
      row.sum = sum_of(row.sum, other);
    }
  }

  const uint each = p.n_experts / p.n_groups;
  ulong groups = 1;  // a bit for each that may be chosen from
  if (p.n_groups != 1) {
    groups = 0;
    for (uint i = 0; i < p.n_groups_used; ++i) {
      Candidate best = nobody();
      for (uint g = lane; g < p.n_groups; g += 32)
        best = first_of(best, Candidate{row.group_rank(g, each), g, uint(~groups >> g & 1)});
      groups |= ulong(1) << first_of_lanes(best).number;
    }
  }
  Candidate last = nobody();
  for (uint i = 0; i < p.n_used; ++i) {
    Candidate best = nobody();
    for (uint e = lane; e < p.n_experts; e += 32) {
      Candidate one = {row.rank(e), e, uint(groups >> (e / each) & 1)};
      if (last.is_there != 0 && !is_before(last, one)) one.is_there = 0;
      best = first_of(best, one);
    }
    last = first_of_lanes(best);
    if (lane == 0) own_chosen[i] = int(last.number);
  }
  threadgroup_barrier(mem_flags::mem_device);

  TwoFloats sum = two_floats(1e-20f);  // of gates that are all shut
  for (uint i = 0; i < p.n_used; ++i) sum = sum_of(sum, row.gated(uint(own_chosen[i])));
  for (uint i = lane; i < p.n_used; i += 32) {
    const TwoFloats gated = row.gated(uint(own_chosen[i]));
    const TwoFloats weight = p.normalise != 0 ? quotient_of(gated, sum) : gated;
    own_weights[i] = product_of(weight, two_floats(p.scale)).high;
  }
}

instantiate_kernel("route", route, 0);
