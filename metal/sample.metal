// sample: a token from each row of logits (cpp/base/sample.h is the definition), a row to a threadgroup.
//
// One threadgroup reads a row at some 100 GB/s, so passes over it are what counts. The first finds the most likely
// entry, and each thread's; greedy ends there. A filter is a threshold in the order of (value, id). Few entries pass
// most filters: the second pass lists those that are not less than what enough threads have, and what is left to do is
// done in the list, sorted. Else a histogram finds the place of the threshold, and the entries of that place alone are
// listed; where they are too many, the next histogram is of their keys. Sums are of whole numbers (sample_sums.h), so
// that a draw is the same every time.
#include "kernel.h"
using namespace metal;
#include "sample_passes.h"

constant constexpr uint kMostRank = 256;  // that is looked for among the threads' own; leaves a list half empty

METAL_FUNC uint power_from(uint n) {
  uint power = 32;
  while (power < n) power *= 2;
  return power;
}

/// That at least `rank` entries are not less than, where each thread has one: of each simdgroup's as many, side by side.
METAL_FUNC float bound_of(uint own_key, uint rank, Room room) {
  const uint2 ordered = sorted(uint2(~own_key, 0u), 32, kThreads, room);
  return value_of(~most_of(room.lane == (rank - 1) / kSimdgroups ? ordered.x : 0, room));
}

/// The last entry, the most likely first, with which weights reach what is wanted, all but the last of which fall short.
METAL_FUNC Kept reaching(device const float* row, uint n, uint best_key, float places_each, Kept kept, Weights weights,
                         Wanted wanted, Room room) {
  Places places = {false, value_of(best_key), places_each, 0, best_key, 0};
  ulong sum = 0;
  for (bool first = true;; first = false) {
    room.low[room.index] = 0, room.high[room.index] = 0;
    threadgroup_barrier(mem_flags::mem_threadgroup);
    Histogram histogram = {kept, places, weights, room};
    go_over<kThreads>(row, room.index, n, histogram);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    if (room.index == 0) room.count[0] = 0;
    Sums sums = sums_of(ulong(room.high[room.index]) << 32 | room.low[room.index], room);
    if (first) sum = max(wanted.from(sums.all, true), ulong(1));
    if (sums.before < sum && sum <= sums.upto) room.found[0] = room.index, room.found[1] = sums.before;
    threadgroup_barrier(mem_flags::mem_threadgroup);
    OfPlace of_place = {kept, places, uint(room.found[0]), room, 0, 0};
    sum -= room.found[1];
    go_over<kThreads>(row, room.index, n, of_place);
    places.by_key = true;
    places.high = most_of(of_place.high, room), places.low = ~most_of(of_place.not_low, room);
    const uint count = room.count[0];
    if (count <= kThreads) {
      const uint size = power_from(count);
      uint2 own = uint2(~0u, ~0u);
      if (room.index < count) own = room.listed[room.index];
      own = sorted(own, size, size, room);
      const float x = value_of(~own.x);
      sums = sums_of(room.index < count ? weights.of(x) : 0, room);
      if (sums.before < sum && sum <= sums.upto) room.found[0] = own.x, room.found[1] = own.y;
      threadgroup_barrier(mem_flags::mem_threadgroup);
      return Kept{value_of(~uint(room.found[0])), uint(room.found[1])};
    }
    if (places.low == places.high) {
      const float x = value_of(places.low);
      const ulong before = (sum - 1) / weights.of(x);
      return Kept{x, first_past(row, n, Equal{x, 0}, Wanted{false, uint(before)}, room)};
    }
    places.shift = 0;
    while ((places.high - places.low) >> places.shift >= kThreads) places.shift += 1;
  }
}

/// Places of a unit for a row of a mass: of flat rows, whose entries are near the best, more. Three times as far as the
/// mean probability is from the best's there are places.
METAL_FUNC float places_of(ulong mass, uint n, Scale scale) {
  const float mean = precise::log(float(n)) - precise::log(float(mass)) + float(42 - scale.dropped) * 0.693147181f;
  return max(precise::divide(float(kThreads - 1), 3.0f * max(mean, 0.0f) + 0.01f), kPlaces);
}

/// Grid: rows. Threads: kThreads.
template <uint unused>
kernel void sample(device const float* logits [[buffer(0)]], device int* out [[buffer(1)]],
                   device const SampleParams* params [[buffer(2)]], constant uint& vocab_size [[buffer(3)]],
                   uint3 group [[threadgroup_position_in_grid]], uint index [[thread_index_in_threadgroup]],
                   uint simdgroup [[simdgroup_index_in_threadgroup]], uint lane [[thread_index_in_simdgroup]]) {
  threadgroup uint low[kThreads];
  threadgroup uint high[kThreads];
  threadgroup uint2 listed[kThreads];
  threadgroup ulong sums_of_simdgroups[kSimdgroups];
  threadgroup uint words[kSimdgroups];
  threadgroup ulong found[2];
  threadgroup uint count_listed[1];
  const Room room = {low, high, listed, sums_of_simdgroups, words, found, count_listed, index, simdgroup, lane};
  device const float* row = logits + ulong(group.x) * vocab_size;
  const uint n = vocab_size;
  device const SampleParams& p = params[group.x];

  const Most own = most_likely(row, n, index);
  const uint best_key = most_of(own.key, room);
  const uint best_id = ~most_of(own.key == best_key ? ~own.id : 0, room);
  const bool wrong = best_key == 0 || best_key > kMostKey;
  if (wrong || p.temperature == 0.0f || p.top_k == 1) {
    if (index == 0) out[group.x] = wrong ? -1 : int(best_id);
    return;
  }
  const float best = value_of(best_key);
  const uint top_k = p.top_k < n ? p.top_k : 0;  // 0: all
  const bool has_top_p = p.top_p < 1.0f;
  const uint top_p = fraction_of(p.top_p);
  const float min_p = p.min_p > 0.0f ? min(best + precise::log(p.min_p), best) : -INFINITY;
  const Scale plain = scale_of(best, 1.0f, n);

  const bool short_row = n <= kThreads;
  ulong mass = 0;  // of the row, where it is asked for and a list may not have it
  if (short_row || (top_k == 0 ? has_top_p : top_k <= kMostRank)) {
    if (index == 0) room.count[0] = 0;
    const float bound = short_row ? -INFINITY : bound_of(own.key, top_k == 0 ? kMostRank : top_k, room);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    if (short_row || top_k != 0) {
      Gather<false> gather = {bound, plain, room, 0};
      go_over<kThreads>(row, index, n, gather);
    } else {
      Gather<true> gather = {bound, plain, room, 0};
      go_over<kThreads>(row, index, n, gather);
      mass = gather.mass;
    }
    mass = sums_of(mass, room).all;
    const uint count = room.count[0];
    bool whole = count <= kThreads;  // the list has all that is kept
    if (whole) {
      const uint size = power_from(count);
      uint2 entry = uint2(~0u, ~0u);
      if (index < count) entry = room.listed[index];
      entry = sorted(entry, size, size, room);  // the most likely first
      const float x = value_of(~entry.x);
      const bool in_top_k = index < (top_k == 0 ? count : top_k);
      bool kept = in_top_k && x >= min_p;
      if (has_top_p) {
        const Sums sums = sums_of(in_top_k ? mass_of(x, plain) : 0, room);
        const ulong enough = max(part_of(mass == 0 ? sums.all : mass, top_p, true), ulong(1));
        kept = kept && sums.before < enough;
        whole = sums.all >= enough;
      }
      if (whole) {
        entry = sorted(kept ? uint2(entry.y, entry.x) : uint2(~0u, ~0u), size, size, room);  // by their ids
        const Scale heated = scale_of(best, p.temperature, n);
        const Sums sums = sums_of(mass_of(value_of(~entry.y), heated), room);
        const ulong drawn = part_of(sums.all, fraction_of(p.uniform), false);
        if (sums.before <= drawn && drawn < sums.upto) out[group.x] = int(entry.x);
        return;
      }
    }
  }

  Kept kept = {-INFINITY, ~0u};
  if (top_k != 0) kept = reaching(row, n, best_key, kPlaces, kept, Weights{true, plain}, Wanted{false, top_k}, room);
  if (has_top_p) {
    const float each = mass == 0 ? kPlaces : places_of(mass, n, plain);
    kept = reaching(row, n, best_key, each, kept, Weights{false, plain}, Wanted{true, top_p}, room);
  }
  if (min_p > kept.least) kept = Kept{min_p, ~0u};
  const Scale heated = scale_of(best, p.temperature, n);
  const uint drawn = first_past(row, n, Drawn{kept, heated, 0}, Wanted{true, fraction_of(p.uniform)}, room);
  if (index == 0) out[group.x] = int(drawn);
}

instantiate_kernel("sample", sample, 0);
