// sample: a token from each row of logits (cpp/base/sample.h is the definition). A filter is a threshold: it is found
// by bisection over the ordered bits of a float, each step a sum over the row in one order, so that a draw is the same
// every time.
#include "kernel.h"
using namespace metal;

constant constexpr uint kSimdgroups = SampleLaunch::kSimdgroups, kThreads = SampleLaunch::kThreads;

/// Ascending with x; zeros of both signs are one.
METAL_FUNC uint order_key(float x) {
  const uint bits = as_type<uint>(x + 0.0f);
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}
METAL_FUNC float value_of(uint key) { return as_type<float>((key & 0x80000000u) != 0 ? key & 0x7fffffffu : ~key); }

constant constexpr uint kLeastKey = 0x007fffffu;  // of -infinity

/// A NaN or +infinity, told by its bits: compilers of shaders may take it that there are none.
METAL_FUNC bool is_no_logit(float x) {
  const uint bits = as_type<uint>(x);
  return bits == 0x7f800000u || (bits & 0x7fffffffu) > 0x7f800000u;
}

/// Of the values whose keys pass a threshold: how many, and the sum of exp(x - best).
struct Sum {
  uint count;
  float mass;
};

struct Room {
  threadgroup uint* counts;   // [kSimdgroups]
  threadgroup float* masses;  // [kSimdgroups]
};

/// The same for every thread.
METAL_FUNC Sum add_up(Sum own, Room room, uint simdgroup, uint lane) {
  const uint count = simd_sum(own.count);
  const float mass = simd_sum(own.mass);
  threadgroup_barrier(mem_flags::mem_threadgroup);  // the sum before has been read
  if (lane == 0) room.counts[simdgroup] = count, room.masses[simdgroup] = mass;
  threadgroup_barrier(mem_flags::mem_threadgroup);
  Sum all = {0, 0.0f};
  for (uint i = 0; i < kSimdgroups; ++i) all.count += room.counts[i], all.mass += room.masses[i];
  return all;
}

METAL_FUNC Sum sum_from(device const float* row, uint n, uint least, float best, Room room, uint index, uint simdgroup,
                        uint lane) {
  Sum own = {0, 0.0f};
  for (uint i = index; i < n; i += kThreads) {
    const float x = row[i];
    if (order_key(x) < least) continue;
    own.count += 1;
    own.mass += precise::exp(x - best);
  }
  return add_up(own, room, simdgroup, lane);
}

/// What is kept: keys above `key`, and of those equal to it the first `ties` ids.
struct Kept {
  uint key;
  uint ties;
};

/// Grid: rows. Threads: kThreads.
template <uint unused>
kernel void sample(device const float* logits [[buffer(0)]], device int* out [[buffer(1)]],
                   device const SampleParams* params [[buffer(2)]], constant uint& vocab_size [[buffer(3)]],
                   uint3 group [[threadgroup_position_in_grid]], uint index [[thread_index_in_threadgroup]],
                   uint simdgroup [[simdgroup_index_in_threadgroup]], uint lane [[thread_index_in_simdgroup]]) {
  threadgroup uint counts[kSimdgroups];
  threadgroup float masses[kSimdgroups];
  threadgroup uint part_ties[kThreads];
  threadgroup float part_masses[kThreads];
  Room room = {counts, masses};
  device const float* row = logits + ulong(group.x) * vocab_size;
  const uint n = vocab_size;
  device const SampleParams& p = params[group.x];

  // The most likely, the lowest id of equals; and whether a value is no logit.
  uint best_key = 0, best_id = 0, wrong = 0;
  for (uint i = index; i < n; i += kThreads) {
    const uint key = order_key(row[i]);
    if (key > best_key) best_key = key, best_id = i;
    wrong |= is_no_logit(row[i]) ? 1 : 0;
  }
  const uint simd_key = simd_max(best_key);
  const uint simd_id = ~simd_max(best_key == simd_key ? ~best_id : 0u);
  wrong = simd_max(wrong);
  if (lane == 0) {
    part_ties[2 * simdgroup] = simd_key, part_ties[2 * simdgroup + 1] = simd_id;
    part_ties[2 * kSimdgroups + simdgroup] = wrong;
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  best_key = 0, best_id = 0;
  for (uint i = 0; i < kSimdgroups; ++i) {
    const uint key = part_ties[2 * i], id = part_ties[2 * i + 1];
    if (key > best_key || (key == best_key && id < best_id)) best_key = key, best_id = id;
    wrong |= part_ties[2 * kSimdgroups + i];
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  if (wrong != 0 || best_key == kLeastKey) {
    if (index == 0) out[group.x] = -1;
    return;
  }
  if (p.temperature == 0.0f || p.top_k == 1) {
    if (index == 0) out[group.x] = int(best_id);
    return;
  }
  const float best = value_of(best_key);

  Kept kept = {0, n};
  if (p.top_k != 0 && p.top_k < n) {
    uint low = 0, high = best_key;  // at least top_k from `low` on; fewer past `high`
    while (low < high) {
      const uint middle = low + (high - low - 1) / 2 + 1;
      if (sum_from(row, n, middle, best, room, index, simdgroup, lane).count >= p.top_k)
        low = middle;
      else
        high = middle - 1;
    }
    const uint above = low == best_key ? 0 : sum_from(row, n, low + 1, best, room, index, simdgroup, lane).count;
    kept.key = low, kept.ties = p.top_k - above;
  }
  if (p.top_p < 1.0f) {
    const Sum from = sum_from(row, n, kept.key, best, room, index, simdgroup, lane);
    const Sum above = sum_from(row, n, kept.key + 1, best, room, index, simdgroup, lane);
    const float tie = precise::exp(value_of(kept.key) - best);
    const float total = kept.ties < from.count - above.count ? above.mass + float(kept.ties) * tie : from.mass;
    const float wanted = p.top_p * total;
    uint low = kept.key, high = best_key;  // enough from `low` on; too little past `high`
    while (low < high) {
      const uint middle = low + (high - low - 1) / 2 + 1;
      if (sum_from(row, n, middle, best, room, index, simdgroup, lane).mass >= wanted)
        low = middle;
      else
        high = middle - 1;
    }
    const float past = low == best_key ? 0.0f : sum_from(row, n, low + 1, best, room, index, simdgroup, lane).mass;
    const float each = precise::exp(value_of(low) - best);
    const float missing = max(wanted - past, 0.0f);
    uint ties = 1;  // few: equal values at the very edge
    while (ties < n && float(ties) * each < missing) ++ties;
    kept.ties = low == kept.key ? min(kept.ties, ties) : ties;
    kept.key = low;
  }
  if (p.min_p > 0.0f) {
    const uint least = min(order_key(best + precise::log(p.min_p)), best_key);
    if (least > kept.key) kept.key = least, kept.ties = n;
  }

  // The draw: each thread sums neighbours, the first adds the sums up to where the draw falls.
  const uint each = (n + kThreads - 1) / kThreads;
  const uint begin = min(index * each, n), end = min(begin + each, n);
  uint own_ties = 0;
  for (uint i = begin; i < end; ++i) own_ties += order_key(row[i]) == kept.key ? 1 : 0;
  part_ties[index] = own_ties;
  threadgroup_barrier(mem_flags::mem_threadgroup);
  uint ties_before = 0;
  for (uint i = 0; i < index; ++i) ties_before += part_ties[i];
  float own_mass = 0.0f;
  uint rank = ties_before;
  for (uint i = begin; i < end; ++i) {
    const uint key = order_key(row[i]);
    if (key > kept.key || (key == kept.key && rank++ < kept.ties))
      own_mass += precise::exp(precise::divide(row[i] - best, p.temperature));
  }
  part_masses[index] = own_mass;
  threadgroup_barrier(mem_flags::mem_threadgroup);
  float total = 0.0f;
  for (uint i = 0; i < kThreads; ++i) total += part_masses[i];
  const float wanted = p.uniform * total;
  float before = 0.0f;
  uint part = kThreads, last = 0;  // where the draw falls; the last part that holds anything
  for (uint i = 0; i < kThreads; ++i) {
    if (part_masses[i] > 0.0f) last = i;
    if (part == kThreads && before + part_masses[i] > wanted) part = i;
    if (part == kThreads) before += part_masses[i];
  }
  if (part == kThreads) part = last;  // sums rounded differently
  if (index != part) return;
  uint chosen = best_id;
  rank = ties_before;
  for (uint i = begin; i < end; ++i) {
    const uint key = order_key(row[i]);
    if (key < kept.key || (key == kept.key && rank++ >= kept.ties)) continue;
    chosen = i;
    before += precise::exp(precise::divide(row[i] - best, p.temperature));
    if (before > wanted) break;
  }
  out[group.x] = int(chosen);
}

instantiate_kernel("sample", sample, 0);
