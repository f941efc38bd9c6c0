// What sample.metal counts with. Probabilities are whole numbers, so that a sum is exact: neither the order in which
// threads come nor how a row is divided among them shows in a draw.
#pragma once

constant constexpr uint kThreads = SampleLaunch::kThreads, kSimdgroups = SampleLaunch::kSimdgroups;
static_assert(kSimdgroups == 32, "a lane for each simdgroup");

/// Ascending with x, 0 for -infinity; zeros of both signs are one. What is no logit, a NaN or +infinity, is past
/// kMostKey.
METAL_FUNC uint order_key(float x) {
  const uint bits = as_type<uint>(x + 0.0f);
  return (bits ^ ((0u - (bits >> 31)) | 0x80000000u)) - 0x007fffffu;
}
METAL_FUNC float value_of(uint key) {
  const uint bits = key + 0x007fffffu;
  return as_type<float>((bits & 0x80000000u) != 0 ? bits & 0x7fffffffu : ~bits);
}
constant constexpr uint kMostKey = 0xff000000u;  // of the largest float

/// Of exp((x - best) / temperature), in two floats: log2(e) / temperature.
struct Scale {
  float best, high, low;
  uint dropped;  // bits of a mass that a longer row has no room for
};

/// A temperature of less than 1e-37 counts as that.
METAL_FUNC Scale scale_of(float best, float temperature, uint n) {
  const float t = max(temperature, 1e-37f);
  Scale scale;
  scale.best = best;
  scale.high = precise::divide(1.44269502f, t);
  scale.low = precise::divide(fma(-scale.high, t, 1.44269502f) + 1.92596299e-8f, t);
  scale.dropped = 0;
  for (ulong most = 1u << 21; most < n; most *= 2) scale.dropped += 1;
  return scale;
}

/// The probability of x beside that of the best, in units of 2^-42: 2^42 at most, so that 2^21 of them are 2^63. (In
/// longer rows units are 2^dropped times as large, and the sum is 2^63 again.) It is off by |x - best| / temperature *
/// 2^-24, the rounding of x - best, and 3e-7 of itself, and by a unit that is cut off. Units are n of the sum, which is
/// 2^42 and more: 6e-8 of it where n is 2^18.
METAL_FUNC ulong mass_of(float x, Scale scale) {
  const float d = x - scale.best;
  const float exponent = fma(d, scale.high, -0.5f);
  if (!(exponent > -44.5f)) return 0;
  const float rounded = exponent + 12582912.0f;  // 1.5 * 2^23: its last bits are the whole number
  const float rest = fma(d, scale.low, fma(d, scale.high, 12582912.0f - rounded));  // 0 .. 1, but for roundings
  // 2^rest's bits, of which an exponent of 2^1 is the 25th.
  const uint two_to_rest = as_type<uint>(fast::exp2(rest)) - 0x3f000000u;
  return (ulong(two_to_rest) << 19) >> (scale.dropped + (0x4b400000u - as_type<uint>(rounded)));
}

/// A float below 1 in 2^-32ths, and the part of a sum that it is, whose rest is cut off, or, if `up`, counts as one.
METAL_FUNC uint fraction_of(float x) { return uint(min(max(x, 0.0f), 0.99999994f) * 4294967296.0f); }
METAL_FUNC ulong part_of(ulong sum, uint fraction, bool up) {
  const ulong low = (sum & 0xffffffffu) * fraction;
  return (sum >> 32) * fraction + (low >> 32) + (up && (low & 0xffffffffu) != 0 ? 1 : 0);
}

/// Metal shuffles no whole numbers of 64 bits, but two of 32.
METAL_FUNC ulong shuffled(ulong x, uint lane) {
  const uint2 from = simd_shuffle(uint2(uint(x), uint(x >> 32)), ushort(lane));
  return ulong(from.y) << 32 | from.x;
}
METAL_FUNC ulong sum_up_to_lane(ulong own, uint lane) {
  for (uint distance = 1; distance < 32; distance *= 2) {
    const ulong other = shuffled(own, (lane - distance) & 31);
    own += lane >= distance ? other : 0;
  }
  return own;
}

/// A thread's place, and what the threads of a row share.
struct Room {
  threadgroup uint* low;      // [kThreads], with `high` sums of 64 bits
  threadgroup uint* high;     // [kThreads]
  threadgroup uint2* listed;  // [kThreads]
  threadgroup ulong* sums;    // [kSimdgroups]
  threadgroup uint* words;    // [kSimdgroups]
  threadgroup ulong* found;   // [2]
  threadgroup uint* count;    // [1], of what is listed
  uint index, simdgroup, lane;
};

/// Over the threads: of those before this one, with this one, and of all.
struct Sums {
  ulong before, upto, all;
};
METAL_FUNC Sums sums_of(ulong own, Room room) {
  const ulong in_simdgroup = sum_up_to_lane(own, room.lane);
  threadgroup_barrier(mem_flags::mem_threadgroup);  // the sums before have been read
  if (room.lane == 31) room.sums[room.simdgroup] = in_simdgroup;
  threadgroup_barrier(mem_flags::mem_threadgroup);
  const ulong simdgroups = sum_up_to_lane(room.sums[room.lane], room.lane);
  const ulong others = shuffled(simdgroups, (room.simdgroup - 1) & 31);
  Sums sums;
  sums.upto = in_simdgroup + (room.simdgroup != 0 ? others : 0);
  sums.before = sums.upto - own;
  sums.all = shuffled(simdgroups, 31);
  return sums;
}

/// The most that a thread has, the same for every thread.
METAL_FUNC uint most_of(uint own, Room room) {
  const uint most = simd_max(own);
  threadgroup_barrier(mem_flags::mem_threadgroup);
  if (room.lane == 0) room.words[room.simdgroup] = most;
  threadgroup_barrier(mem_flags::mem_threadgroup);
  return simd_max(room.words[room.lane]);
}

/// Ascending by x, of equals by y: each `size` of the first `n` threads (a bitonic network). Both are powers of two from
/// 32 on.
METAL_FUNC uint2 sorted(uint2 own, uint size, uint n, Room room) {
  for (uint length = 2; length <= size; length *= 2)
    for (uint distance = length / 2; distance > 0; distance /= 2) {
      uint2 other = own;
      if (distance >= 32) {
        threadgroup_barrier(mem_flags::mem_threadgroup);
        room.listed[room.index] = own;
        threadgroup_barrier(mem_flags::mem_threadgroup);
        other = room.listed[room.index ^ distance];
      } else if (room.index < n) {
        other = simd_shuffle_xor(own, ushort(distance));
      }
      const bool less = other.x < own.x || (other.x == own.x && other.y < own.y);
      const bool ascends = length == size || (room.index & length) == 0, first = (room.index & distance) == 0;
      if (less == (ascends == first)) own = other;
    }
  return own;
}

METAL_FUNC uint add_to(threadgroup uint* sum, uint x) {
  return atomic_fetch_add_explicit((threadgroup atomic_uint*)sum, x, memory_order_relaxed);
}
/// To a sum of 64 bits in two words: whoever sees the lower one run over carries.
METAL_FUNC void add_to(threadgroup uint* low, threadgroup uint* high, ulong x) {
  const uint word = uint(x), before = add_to(low, word);
  const uint carried = uint(x >> 32) + (before + word < word ? 1 : 0);
  if (carried != 0) add_to(high, carried);
}
