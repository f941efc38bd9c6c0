// What sample.metal does with each entry of a row, and the walk over a row.
#pragma once
#include "sample_sums.h"

constant constexpr uint kAhead = 8;  // loads that a thread has under way

/// Every kStep-th entry from `at` on; past the last one -infinity.
template <uint kStep>
METAL_FUNC void load(device const float* row, uint at, uint end, thread float* x) {
  device const float* from = row + at;
  if (at + (kAhead - 1) * kStep < end) {
    UNROLL
    for (uint u = 0; u < kAhead; ++u) x[u] = from[u * kStep];
  } else {
    UNROLL
    for (uint u = 0; u < kAhead; ++u) x[u] = at + u * kStep < end ? from[u * kStep] : -INFINITY;
  }
}

/// Every kStep-th entry from `begin` on goes to `what`, as see(x, id).
template <uint kStep, class What>
METAL_FUNC void go_over(device const float* row, uint begin, uint end, thread What& what) {
  for (uint i = begin; i < end; i += kAhead * kStep) {
    float x[kAhead];
    load<kStep>(row, i, end, x);
    UNROLL
    for (uint u = 0; u < kAhead; ++u)
      if (i + u * kStep < end) what.see(x[u], i + u * kStep);
  }
}

/// The most likely of a thread's entries: its key, and the first id that has it.
struct Most {
  uint key, id;
};
/// Ids are looked for afterwards, for one comparison an entry.
METAL_FUNC Most most_likely(device const float* row, uint n, uint index) {
  Most most = {0, index};
  for (uint i = index; i < n; i += kAhead * kThreads) {
    float x[kAhead];
    load<kThreads>(row, i, n, x);
    uint key = 0;
    UNROLL
    for (uint u = 0; u < kAhead; ++u) key = max(key, order_key(x[u]));
    if (key > most.key) most.key = key, most.id = i;
  }
  while (most.key != 0 && order_key(row[most.id]) != most.key) most.id += kThreads;
  return most;
}

/// What the filters keep: values above `least`, and of those equal to it the ids up to `last`.
struct Kept {
  float least;
  uint last;
  METAL_FUNC bool has(float x, uint id) const { return x > least || (x == least && id <= last); }
};

/// Lists an entry, where there is room. A listed one is (~key, id): ascending by both is the definition's order.
METAL_FUNC void list(float x, uint id, Room room) {
  const uint at = add_to(room.count, 1);
  if (at < kThreads) room.listed[at] = uint2(~order_key(x), id);
}

/// Lists what is not less than `least`; and the mass of all.
template <bool kMass>
struct Gather {
  float least;
  Scale scale;
  Room room;
  ulong mass;
  METAL_FUNC void see(float x, uint id) {
    if (x >= least) list(x, id, room);
    if (kMass) mass += mass_of(x, scale);
  }
};

/// What entries weigh as a filter counts them: one each, or their mass.
struct Weights {
  bool count;
  Scale scale;
  METAL_FUNC ulong of(float x) const { return count ? 1 : mass_of(x, scale); }
};

constant constexpr float kPlaces = 33.0f;  // of a unit: 31 units are what has a mass, but for a short tail

/// Where an entry falls, the most likely first: by its distance from the best, `each` places a unit, the last place for
/// all that is further; or, among keys from `low` to `high`, by its key. Others have no place (kThreads).
struct Places {
  bool by_key;
  float best, each;
  uint low, high, shift;
  METAL_FUNC uint of(float x) const {
    if (!by_key) return uint(min((best - x) * each, float(kThreads - 1)));
    const uint key = order_key(x);
    return key < low || key > high ? kThreads : (high - key) >> shift;
  }
};

/// The weight of each place.
struct Histogram {
  Kept kept;
  Places places;
  Weights weights;
  Room room;
  METAL_FUNC void see(float x, uint id) {
    if (!kept.has(x, id)) return;
    const uint at = places.of(x);
    const ulong weight = at < kThreads ? weights.of(x) : 0;
    if (weight != 0) add_to(room.low + at, room.high + at, weight);
  }
};

/// Lists a place; and its highest and lowest key, the latter's bits turned over.
struct OfPlace {
  Kept kept;
  Places places;
  uint place;
  Room room;
  uint high, not_low;
  METAL_FUNC void see(float x, uint id) {
    if (!kept.has(x, id) || places.of(x) != place) return;
    list(x, id, room);
    high = max(high, order_key(x)), not_low = max(not_low, ~order_key(x));
  }
};

/// The mass of what is kept.
struct Drawn {
  Kept kept;
  Scale scale;
  ulong sum;
  METAL_FUNC void see(float x, uint id) {
    if (kept.has(x, id)) sum += mass_of(x, scale);
  }
};

/// How many are equal to a value.
struct Equal {
  float value;
  ulong sum;
  METAL_FUNC void see(float x, uint) { sum += x == value ? 1 : 0; }
};

/// A sum that is looked for: a number, or, of all that there is, 2^-32ths.
struct Wanted {
  bool part;
  uint of;
  METAL_FUNC ulong from(ulong all, bool up) const { return part ? part_of(all, of, up) : of; }
};

/// In the order of ids, the first entry with which `what` sums more than is wanted.
template <class What>
METAL_FUNC uint first_past(device const float* row, uint n, What what, Wanted wanted, Room room) {
  // A simdgroup has neighbours, and its lanes go over them side by side.
  const uint chunk = (n + kThreads - 1) / kThreads * 32;
  const uint begin = min(room.simdgroup * chunk, n), end = min(begin + chunk, n);
  go_over<32>(row, begin + room.lane, end, what);
  const Sums chunks = sums_of(what.sum, room);
  ulong sum = wanted.from(chunks.all, false);
  const ulong before_chunk = shuffled(chunks.before, 0);
  if (chunks.before <= sum && sum < chunks.upto) room.found[0] = room.simdgroup, room.found[1] = before_chunk;
  threadgroup_barrier(mem_flags::mem_threadgroup);
  const uint at = uint(room.found[0]) * chunk, past = min(at + chunk, n);
  sum -= room.found[1];
  // Of its chunk each thread has neighbours.
  const uint each = (past - at + kThreads - 1) / kThreads;
  const uint from = min(at + room.index * each, past), to = min(from + each, past);
  what.sum = 0;
  for (uint i = from; i < to; ++i) what.see(row[i], i);
  const Sums sums = sums_of(what.sum, room);
  if (sums.before <= sum && sum < sums.upto) {
    uint id = from;
    what.sum = sums.before;
    for (what.see(row[id], id); what.sum <= sum; what.see(row[id], id)) ++id;
    room.found[0] = id;
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  return uint(room.found[0]);
}
