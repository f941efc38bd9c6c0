// Attention of a few rows over the page table. The positions of a query are split, whole segments to a threadgroup, so
// that long histories fill the GPU; the splits depend on the query's position alone. Each has a softmax of its own
// (max, sum, out), which attention_merge joins in ascending order (FlashAttention-2, arXiv:2307.08691; Flash-Decoding,
// Dao et al. 2023).
#include "kernel.h"
using namespace metal;
#include "attention.h"
#include "gates.h"

constant constexpr uint kSimdgroups = AttentionDecodeLaunch::kSimdgroups;

struct SplitRange {
  uint begin, end;
};

/// Positions that split `index` of a query at `position` sees.
METAL_FUNC SplitRange split_range(constant AttentionParams& p, uint position, uint index, uint n_splits) {
  const uint end = position + 1;
  const uint begin = p.window != 0 && end > p.window ? end - p.window : 0;
  const uint first = begin / p.segment_tokens, last = (end + p.segment_tokens - 1) / p.segment_tokens;
  const uint each = (last - first + n_splits - 1) / n_splits;
  SplitRange range;
  range.begin = max(begin, (first + index * each) * p.segment_tokens);
  range.end = min(end, (first + (index + 1) * each) * p.segment_tokens);
  return range;
}

/// Eight dims of a row of K or V. Where a lane has registers enough they are asked for while the rows before are
/// computed with, so that memory is never idle; else they are read where they are wanted.
template <class Format, bool kEarly>
struct Eight {
  typename Format::Fetched fetched;
  METAL_FUNC void ask(uint, device const uchar* row, uint dim) { fetched = Format::fetch(row, dim); }
  METAL_FUNC void widen(thread float* x) const { Format::widen(fetched, x); }
};
template <class Format>
struct Eight<Format, false> {
  device const uchar* row;
  uint dim, type;
  METAL_FUNC void ask(uint type_of, device const uchar* row_at, uint dim_at) {
    type = type_of, row = row_at, dim = dim_at;
  }
  METAL_FUNC void widen(thread float* x) const { eight_of(Format(), type, row, dim, x); }
};
template <class Format>
struct IsEarly {
  static constant constexpr bool value = !kFewRegisters;
};
template <>
struct IsEarly<AnyFormat> {
  static constant constexpr bool value = false;
};

/// Rows of K and V of kUnroll positions of a lane, kTokens apart.
template <class Format, uint kUnroll, uint kTokens>
struct Rows {
  Eight<Format, IsEarly<Format>::value> key[kUnroll], value[kUnroll];
  /// Of base + token and behind, all in one page. Where the range does not have a position it is its nearest.
  METAL_FUNC void ask(thread const KvRows& keys, thread const KvRows& values, constant KvParams& kv, SplitRange range,
                      uint base, uint token, uint dim) {
    device const uchar* key_page = keys.page_of(base);
    device const uchar* value_page = values.page_of(base);
    UNROLL
    for (uint u = 0; u < kUnroll; ++u) {
      const uint position = min(max(base + u * kTokens + token, range.begin), range.end - 1);
      key[u].ask(kv.k_type, key_page + keys.behind(position), dim);
      value[u].ask(kv.v_type, value_page + values.behind(position), dim);
    }
  }
};

/// A lane has kUnroll * kQueries partial scores, and so have the other lanes of the kLanes that a head has. Their sums,
/// by halves: each lane comes out with one score, the one with the index that its place says (place * n / kLanes), for
/// as many additions as one score took, each in the same order.
template <uint kLanes, uint kScores>
struct Sums {
  static METAL_FUNC float of(thread float* score, uint lane) {
    constexpr uint kHalf = kScores / 2, kMask = kLanes / 2;
    const bool upper = (lane & kMask) != 0;
    float half_of[kHalf];
    UNROLL
    for (uint i = 0; i < kHalf; ++i) {
      const float mine = upper ? score[i + kHalf] : score[i], others = upper ? score[i] : score[i + kHalf];
      half_of[i] = mine + simd_shuffle_xor(others, ushort(kMask));
    }
    return Sums<kLanes / 2, kHalf>::of(half_of, lane);
  }
};
template <uint kLanes>
struct Sums<kLanes, 1> {
  static METAL_FUNC float of(thread float* score, uint) {
    float sum = score[0];
    UNROLL
    for (uint mask = kLanes / 2; mask > 0; mask /= 2) sum += simd_shuffle_xor(sum, ushort(mask));
    return sum;
  }
};

/// Grid: (n_kv_heads * parts, n_splits, rows). Threads: kSimdgroups * 32. A lane has eight dims of some queries; kLanes
/// of them make a head, and the others of a simdgroup take other positions. partials [row][head][split]: max, sum, out
/// [head_dim].
template <class Format, uint kLanes, uint kQueries>
kernel void attention_decode(device const float* q [[buffer(0)]], device const Sequence* sequences [[buffer(1)]],
                             device float* partials [[buffer(2)]], constant KvParams& kv [[buffer(3)]],
                             constant AttentionParams& p [[buffer(4)]], constant SplitParams& split [[buffer(5)]],
                             uint3 group [[threadgroup_position_in_grid]],
                             uint simdgroup [[simdgroup_index_in_threadgroup]],
                             uint lane [[thread_index_in_simdgroup]]) {
  // Positions of a simdgroup at a time: they lie in one page, whose size 8 divides.
  constexpr uint kStep = kLanes > (kFewRegisters ? 8u : 16u) ? 4 : 8;
  constexpr uint kTokens = 32 / kLanes, kUnroll = kStep / kTokens;  // at once, and one after the other
  threadgroup float maxima[kSimdgroups * kQueries];
  threadgroup float sums[kSimdgroups * kQueries];
  threadgroup float outs[kSimdgroups * kQueries * kLanes * 8];

  const uint row = split.first_row + group.z;
  const SequenceRow at = sequence_of(sequences, p.n_sequences, row);
  if (at.sequence->n_rows >= split.prefill_rows) return;
  const uint per_kv_head = p.n_heads / kv.n_kv_heads;
  const uint kv_head = group.x / split.parts, first = group.x % split.parts * kQueries;
  const uint head = kv_head * per_kv_head + first, n_queries = min(kQueries, per_kv_head - first);
  const uint dim = lane % kLanes * 8, token = lane / kLanes;
  // The score that this lane has of the kUnroll * kQueries, and the lane of its head that has the one with this index.
  constexpr uint kScores = kUnroll * kQueries, kEach = kLanes / kScores;
  const uint own = lane % kLanes / kEach, own_position = own / kQueries * kTokens + token,
             first_lane = lane - lane % kLanes;
  const bool active = dim < kv.head_dim;
  const SplitRange range = split_range(p, at.position, group.y, split.n_splits);
  const KvRows keys = rows_of<Format>(at.sequence->pages, kv, p.layer, kv_head, false);
  const KvRows values = rows_of<Format>(at.sequence->pages, kv, p.layer, kv_head, true);

  float query[kQueries][8], out[kQueries][8], most[kQueries], sum[kQueries];
  UNROLL
  for (uint i = 0; i < kQueries; ++i) {
    most[i] = -INFINITY, sum[i] = 0.0f;
    UNROLL
    for (uint d = 0; d < 8; ++d) {
      const bool there = active && i < n_queries;
      query[i][d] = there ? q[(ulong(row) * p.n_heads + head + i) * kv.head_dim + dim + d] * p.scale : 0.0f;
      out[i][d] = 0.0f;
    }
  }

  uint base = range.begin / kStep * kStep + simdgroup * kStep;
  const uint last = range.end / kStep * kStep == range.end ? range.end - kStep : range.end / kStep * kStep;
  const uint fetched_dim = active ? dim : 0;
  Rows<Format, kUnroll, kTokens> rows;
  if (base < range.end) rows.ask(keys, values, kv, range, base, token, fetched_dim);
  for (; base < range.end; base += kSimdgroups * kStep) {
    Rows<Format, kUnroll, kTokens> next_rows;
    next_rows.ask(keys, values, kv, range, min(base + kSimdgroups * kStep, last), token, fetched_dim);
    float score[kScores];
    UNROLL
    for (uint u = 0; u < kUnroll; ++u) {
      float x[8];
      rows.key[u].widen(x);
      UNROLL
      for (uint i = 0; i < kQueries; ++i) {
        float dot = 0.0f;
        UNROLL
        for (uint d = 0; d < 8; ++d) dot = fma(query[i][d], x[d], dot);
        score[u * kQueries + i] = dot;
      }
    }
    float mine = Sums<kLanes, kScores>::of(score, lane);
    if (p.cap != 0.0f) mine = soft_cap(mine, p.cap);
    const uint position = base + own_position;
    if (position < range.begin || position >= range.end) mine = -INFINITY;
    float joint = mine;  // the largest of its query's
    UNROLL
    for (uint mask = kEach * kQueries; mask < kLanes; mask *= 2)
      joint = max(joint, simd_shuffle_xor(joint, ushort(mask)));
    float next[kQueries];
    UNROLL
    for (uint i = 0; i < kQueries; ++i) next[i] = max(most[i], simd_shuffle(joint, ushort(first_lane + i * kEach)));
    float own_next = next[0];
    UNROLL
    for (uint i = 1; i < kQueries; ++i) own_next = own % kQueries == i ? next[i] : own_next;
    const float own_weight = own_next == -INFINITY ? 0.0f : precise::exp(mine - own_next);
    UNROLL
    for (uint i = 0; i < kQueries; ++i) {
      const float keep = next[i] == -INFINITY ? 1.0f : precise::exp(most[i] - next[i]);
      most[i] = next[i];
      sum[i] *= keep;
      UNROLL
      for (uint d = 0; d < 8; ++d) out[i][d] *= keep;
    }
    UNROLL
    for (uint u = 0; u < kUnroll; ++u) {
      float x[8];
      rows.value[u].widen(x);
      UNROLL
      for (uint i = 0; i < kQueries; ++i) {
        const float weight = simd_shuffle(own_weight, ushort(first_lane + (u * kQueries + i) * kEach));
        sum[i] += weight;
        UNROLL
        for (uint d = 0; d < 8; ++d) out[i][d] = fma(weight, x[d], out[i][d]);
      }
    }
    rows = next_rows;
  }

  // The positions of a simdgroup's other lanes, then the other simdgroups.
  UNROLL
  for (uint i = 0; i < kQueries; ++i) {
    UNROLL
    for (uint mask = kLanes; mask < 32; mask *= 2) {
      const float other = simd_shuffle_xor(most[i], ushort(mask)), joint = max(most[i], other);
      const float keep = joint == -INFINITY ? 0.0f : precise::exp(most[i] - joint);
      most[i] = joint;
      sum[i] *= keep;
      sum[i] += simd_shuffle_xor(sum[i], ushort(mask));
      UNROLL
      for (uint d = 0; d < 8; ++d) {
        out[i][d] *= keep;
        out[i][d] += simd_shuffle_xor(out[i][d], ushort(mask));
      }
    }
  }
  UNROLL
  for (uint i = 0; i < kQueries; ++i) {
    const uint slot = simdgroup * kQueries + i;
    if (lane == 0) maxima[slot] = most[i], sums[slot] = sum[i];
    if (token != 0) continue;
    UNROLL
    for (uint d = 0; d < 8; ++d) outs[slot * kLanes * 8 + dim + d] = out[i][d];
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  for (uint e = simdgroup * 32 + lane; e < n_queries * kv.head_dim; e += kSimdgroups * 32) {
    const uint i = e / kv.head_dim, d = e % kv.head_dim;
    float joint = -INFINITY, total = 0.0f, value = 0.0f;
    UNROLL
    for (uint s = 0; s < kSimdgroups; ++s) joint = max(joint, maxima[s * kQueries + i]);
    UNROLL
    for (uint s = 0; s < kSimdgroups; ++s) {
      const uint slot = s * kQueries + i;
      const float weight = maxima[slot] == -INFINITY ? 0.0f : precise::exp(maxima[slot] - joint);
      total = fma(sums[slot], weight, total);
      value = fma(outs[slot * kLanes * 8 + d], weight, value);
    }
    device float* to =
        partials + ((ulong(group.z) * p.n_heads + head + i) * split.n_splits + group.y) * (kv.head_dim + 2);
    to[2 + d] = value;
    if (d == 0) to[0] = joint, to[1] = total;
  }
}

constant bool has_sinks [[function_constant(0)]];

/// Grid: (n_heads, rows). Threads: 32 at least, any number. A sink is one more score of a head, behind all, without a
/// value.
template <uint kThreads>
kernel void attention_merge(device const float* partials [[buffer(0)]], device float* out [[buffer(1)]],
                            constant KvParams& kv [[buffer(2)]], constant AttentionParams& p [[buffer(3)]],
                            constant SplitParams& split [[buffer(4)]], device const Sequence* sequences [[buffer(5)]],
                            device const float* sinks [[buffer(6)]], uint3 group [[threadgroup_position_in_grid]],
                            uint index [[thread_index_in_threadgroup]]) {
  if (sequence_of(sequences, p.n_sequences, split.first_row + group.y).sequence->n_rows >= split.prefill_rows) return;
  device const float* from = partials + (ulong(group.y) * p.n_heads + group.x) * split.n_splits * (kv.head_dim + 2);
  float joint = -INFINITY;
  for (uint s = 0; s < split.n_splits; ++s) joint = max(joint, from[s * (kv.head_dim + 2)]);
  for (uint d = index; d < kv.head_dim; d += kThreads) {
    float total = 0.0f, value = 0.0f;
    for (uint s = 0; s < split.n_splits; ++s) {
      device const float* one = from + s * (kv.head_dim + 2);
      const float weight = one[1] > 0.0f ? precise::exp(one[0] - joint) : 0.0f;
      total = fma(one[1], weight, total);
      value = one[1] > 0.0f ? fma(one[2 + d], weight, value) : value;
    }
    if (has_sinks) total += precise::exp(sinks[group.x] - joint);
    out[(ulong(split.first_row + group.y) * p.n_heads + group.x) * kv.head_dim + d] = value / total;
  }
}

#define instantiate_queries(queries, lanes, name, Format) \
  instantiate_kernel("attention_decode_" #name "_" #lanes "_" #queries, attention_decode, Format, lanes, queries)
#define instantiate_lanes(lanes, name, Format) FOUNDRY_DECODE_QUERIES(instantiate_queries, lanes, name, Format)
#define instantiate_format(name, Format) of_part(name, FOUNDRY_DECODE_LANES(instantiate_lanes, name, Format))

FOUNDRY_DECODE_FORMATS(instantiate_format)
instantiate_format(any, AnyFormat)
    of_part(rest, instantiate_kernel("attention_merge", attention_merge, AttentionMergeLaunch::kThreads);)
