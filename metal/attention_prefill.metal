// Attention of many rows over the page table, with matrix tiles (FlashAttention-2, arXiv:2307.08691). A simdgroup has
// 16 rows, or 8, or 32, of one query head; the heads of a KV head are neighbours in a threadgroup and share each load of
// K and V, staged as half.
#include "kernel.h"
using namespace metal;
#include "attention.h"
#include "gates.h"
#include "tile.h"

constant constexpr uint kSimdgroups = AttentionPrefillLaunch::kSimdgroups;
constant constexpr uint kThreads = AttentionPrefillLaunch::kThreads;
constant constexpr float kLog2E = 1.4426950408889634f;  // weights are powers of two

/// Eight neighbours of a row as halves, packed.
template <class Format>
struct Stage {
  static METAL_FUNC uint pair(float low, float high) {
    return uint(as_type<ushort>(half(low))) | uint(as_type<ushort>(half(high))) << 16;
  }
  static METAL_FUNC uint4 eight(device const uchar* row, uint i) {
    float x[8];
    Format::eight(row, i, x);
    return uint4(pair(x[0], x[1]), pair(x[2], x[3]), pair(x[4], x[5]), pair(x[6], x[7]));
  }
};
template <>
struct Stage<F16> {
  static METAL_FUNC uint4 eight(device const uchar* row, uint i) { return *(device const uint4*)(row + ulong(i) * 2); }
};

/// A thread's share of kKeys positions of K or V. All of it is read before any of it is stored, so that the reads
/// overlap.
template <uint kDim, uint kKeys>
struct KvShare {
  enum : uint { kParts = kDim / 8, kCount = (kKeys * kParts + kThreads - 1) / kThreads };
  uint4 held[kCount];

  /// Positions first .. first + kKeys; those outside begin .. end are zero.
  template <class Format>
  METAL_FUNC void read(Format, uint, thread const KvRows& rows, uint first, uint begin, uint end, uint index) {
    UNROLL
    for (uint c = 0; c < kCount; ++c) {
      const uint i = index + c * kThreads, position = first + i / kParts;
      held[c] = uint4(0, 0, 0, 0);
      if (i < kKeys * kParts && position >= begin && position < end)
        held[c] = Stage<Format>::eight(rows.at(position), i % kParts * 8);
    }
  }
  METAL_FUNC void read(AnyFormat, uint type, thread const KvRows& rows, uint first, uint begin, uint end, uint index) {
#define FOUNDRY_READ(name, Name, number, elements, bytes, kind, weight, table, kv) \
  FOUNDRY_GPU_##kv(case number : read(Name(), type, rows, first, begin, end, index); return;)
    switch (type) { FOUNDRY_FORMATS(FOUNDRY_READ) }
#undef FOUNDRY_READ
  }
  /// [kKeys][kDim + 8] halves, eight at a time
  METAL_FUNC void store(threadgroup uint4* to, uint index) const {
    UNROLL
    for (uint c = 0; c < kCount; ++c) {
      const uint i = index + c * kThreads;
      if (i < kKeys * kParts) to[i / kParts * (kParts + 1) + i % kParts] = held[c];
    }
  }
};

/// The same share of K or V in halves, copied beside what is computed with the positions before.
template <uint kDim, uint kKeys>
METAL_FUNC void copy_share(threadgroup uint4* to, thread const KvRows& rows, uint first, uint begin, uint end,
                           uint index) {
  constexpr uint kParts = kDim / 8;
  UNROLL
  for (uint c = 0; c < (kKeys * kParts + kThreads - 1) / kThreads; ++c) {
    const uint i = index + c * kThreads, position = first + i / kParts;
    if (i >= kKeys * kParts) continue;
    const bool there = position >= begin && position < end;
    device const uchar* row = rows.at(there ? position : begin);
    copy_later<16>(to + (i / kParts * (kParts + 1) + i % kParts), (device const uint4*)row + i % kParts, there);
  }
}
template <class Format>
struct IsCopied {
  static constant constexpr bool value = false;
};
template <>
struct IsCopied<F16> {
  static constant constexpr bool value = !kFewRegisters;
};

constant bool has_sinks [[function_constant(0)]];  // one more score of each head, without a value

/// Grid: (groups of kSimdgroups strips, n_kv_heads, sequences). A strip is kRows rows of a head: strip u is head u %
/// group of rows u / group * kRows. Sequences of fewer than split.prefill_rows rows are left to attention_decode. In
/// narrow strips V is read behind K, into the same place: half the registers that hold what is under way.
template <class Format, uint kDim, uint kKeys, uint kRows>
kernel void attention_prefill(device const float* q [[buffer(0)]], device const Sequence* sequences [[buffer(1)]],
                              device float* out [[buffer(2)]], constant KvParams& kv [[buffer(3)]],
                              constant AttentionParams& p [[buffer(4)]], constant SplitParams& split [[buffer(5)]],
                              device const float* sinks [[buffer(6)]], uint3 group [[threadgroup_position_in_grid]],
                              uint index [[thread_index_in_threadgroup]],
                              uint simdgroup [[simdgroup_index_in_threadgroup]],
                              uint lane [[thread_index_in_simdgroup]]) {
  constexpr uint kTiles = kDim / 16, kKeyTiles = kKeys / 16, kStride = kDim + 8, kWords = kKeys * kStride / 8;
  constexpr uint kElements = kRows / 2, kOwn = kRows / 8;  // of a tile, and rows, that a lane has
  constexpr bool kInTurn = kRows < AttentionPrefillLaunch::kRows;
  constexpr bool kCopied = IsCopied<Format>::value;  // into one half of the room while the other is in use
  constexpr uint kRooms = kCopied ? 2 : 1;
  // Halves in fact, [kKeys][kStride]. Declared as what is stored, for stores of 16 bytes want a place that is aligned
  // to them.
  threadgroup uint4 key_store[kRooms * kWords];
  threadgroup uint4 value_store[kInTurn ? 1 : kRooms * kWords];

  device const Sequence& sequence = sequences[group.z];
  const uint per_kv_head = p.n_heads / kv.n_kv_heads;
  const uint n_strips = (sequence.n_rows + kRows - 1) / kRows * per_kv_head;
  // Long rows first: causal ones have the most to do.
  const uint n_groups = (n_strips + kSimdgroups - 1) / kSimdgroups;
  if (sequence.n_rows < split.prefill_rows || group.x >= n_groups) return;
  const uint first_strip = (n_groups - 1 - group.x) * kSimdgroups,
             last_strip = min(first_strip + kSimdgroups, n_strips) - 1;
  const uint strip = first_strip + simdgroup;
  const bool busy = strip < n_strips;
  const uint row = min(strip, last_strip) / per_kv_head * kRows;
  const uint head = group.y * per_kv_head + min(strip, last_strip) % per_kv_head;
  const KvRows k_rows = rows_of<Format>(sequence.pages, kv, p.layer, group.y, false);
  const KvRows v_rows = rows_of<Format>(sequence.pages, kv, p.layer, group.y, true);

  // Positions that some row of the threadgroup sees.
  const uint group_row = first_strip / per_kv_head * kRows,
             last_row = min(last_strip / per_kv_head * kRows + kRows, sequence.n_rows);
  const uint end = sequence.start + last_row, oldest = sequence.start + group_row + 1;
  const uint begin = p.window != 0 && oldest > p.window ? oldest - p.window : 0;

  // This lane's rows: own, and own + 8 of a tile of 16. Past the last row the last one again, and nobody sees it.
  const uint own = row + tile_row(lane);
  uint rows[kOwn], sees_from[kOwn], sees_to[kOwn];
  UNROLL
  for (uint h = 0; h < kOwn; ++h) {
    rows[h] = min(own + 8 * h, sequence.n_rows - 1);
    sees_to[h] = sequence.start + rows[h] + 1;
    sees_from[h] = p.window != 0 && sees_to[h] > p.window ? sees_to[h] - p.window : 0;
  }
  TileLeft<half, kRows> queries[kTiles];
  UNROLL
  for (uint t = 0; t < kTiles; ++t) {
    float x[kElements];
    UNROLL
    for (uint i = 0; i < kElements; ++i) {
      const ulong at = (ulong(sequence.first_row + rows[i / 4]) * p.n_heads + head) * kDim;
      x[i] = q[at + t * 16 + tile_column(lane) + 8 * (i / 2 % 2) + i % 2] * (p.scale * kLog2E);
    }
    tile_set(queries[t], x);
  }
  TileSum<kRows> sums[kTiles];
  float zeros[kElements];
  UNROLL
  for (uint i = 0; i < kElements; ++i) zeros[i] = 0.0f;
  float most[kOwn], total[kOwn];
  UNROLL
  for (uint t = 0; t < kTiles; ++t) tile_set(sums[t], zeros);
  UNROLL
  for (uint h = 0; h < kOwn; ++h) most[h] = -INFINITY, total[h] = 0.0f;

  uint room = 0;  // in use, in words
  if (kCopied) {
    copy_share<kDim, kKeys>(key_store, k_rows, begin / kKeys * kKeys, begin, end, index);
    copy_share<kDim, kKeys>(value_store, v_rows, begin / kKeys * kKeys, begin, end, index);
    copies_begun();
  }
  for (uint first = begin / kKeys * kKeys; first < end; first += kKeys) {
    KvShare<kDim, kKeys> key_share, value_share;
    if (kCopied) {
      copies_done<0>();
      threadgroup_barrier(mem_flags::mem_threadgroup);  // and the other room is nobody's any more
      const uint other = room == 0 ? kWords : 0;
      if (first + kKeys < end) {
        copy_share<kDim, kKeys>(key_store + other, k_rows, first + kKeys, begin, end, index);
        copy_share<kDim, kKeys>(value_store + other, v_rows, first + kKeys, begin, end, index);
        copies_begun();
      }
    } else {
      key_share.read(Format(), kv.k_type, k_rows, first, begin, end, index);
      if (!kInTurn) value_share.read(Format(), kv.v_type, v_rows, first, begin, end, index);
      threadgroup_barrier(mem_flags::mem_threadgroup);
      key_share.store(key_store, index);
      if (!kInTurn) value_share.store(value_store, index);
      threadgroup_barrier(mem_flags::mem_threadgroup);
      if (kInTurn) value_share.read(Format(), kv.v_type, v_rows, first, begin, end, index);
    }
    threadgroup const half* keys = (threadgroup const half*)(key_store + room);
    threadgroup const half* values = kInTurn ? keys : (threadgroup const half*)(value_store + room);

    float scores[kKeyTiles][kElements];
    UNROLL
    for (uint n = 0; n < kKeyTiles; ++n) {
      TileSum<kRows> score;
      tile_set(score, zeros);
      UNROLL
      for (uint t = 0; t < kTiles; ++t) {
        TileRight<half> right;
        tile_load_transposed(right, keys + n * 16 * kStride + t * 16, kStride, lane);
        tile_multiply_add(score, queries[t], right);
      }
      tile_get(score, scores[n]);
      if (p.cap == 0.0f) continue;
      UNROLL
      for (uint i = 0; i < kElements; ++i) scores[n][i] = soft_cap(scores[n][i] * (1.0f / kLog2E), p.cap) * kLog2E;
    }
    if (simd_any(first < sees_from[kOwn - 1] || first + kKeys > sees_to[0])) {  // some key is not for some row
      UNROLL
      for (uint n = 0; n < kKeyTiles; ++n) {
        UNROLL
        for (uint i = 0; i < kElements; ++i) {
          const uint position = first + n * 16 + tile_column(lane) + 8 * (i / 2 % 2) + i % 2;
          const bool seen = position >= sees_from[i / 4] && position < sees_to[i / 4];
          scores[n][i] = seen ? scores[n][i] : -INFINITY;
        }
      }
    }
    float keep[kOwn], shift[kOwn];
    bool grown = false;
    UNROLL
    for (uint h = 0; h < kOwn; ++h) {
      float next = most[h];
      UNROLL
      for (uint n = 0; n < kKeyTiles; ++n) {
        UNROLL
        for (uint i = 0; i < 4; ++i) next = max(next, scores[n][4 * h + i]);
      }
      next = tile_row_max(next);
      shift[h] = next == -INFINITY ? 0.0f : next;  // nothing seen yet: weights of 2^-infinity
      keep[h] = fast::exp2(most[h] - shift[h]);
      most[h] = next;
      total[h] *= keep[h];
      grown = grown || keep[h] != 1.0f;
    }
    grown = simd_any(grown);
    TileLeft<half, kRows> weights[kKeyTiles];
    UNROLL
    for (uint n = 0; n < kKeyTiles; ++n) {
      UNROLL
      for (uint i = 0; i < kElements; ++i) {
        scores[n][i] = fast::exp2(scores[n][i] - shift[i / 4]);
        total[i / 4] += scores[n][i];
      }
      tile_set(weights[n], scores[n]);
    }
    if (kInTurn) {
      threadgroup_barrier(mem_flags::mem_threadgroup);
      value_share.store(key_store, index);
      threadgroup_barrier(mem_flags::mem_threadgroup);
    }
    UNROLL
    for (uint t = 0; t < kTiles; ++t) {
      if (grown) {
        float x[kElements];
        tile_get(sums[t], x);
        UNROLL
        for (uint i = 0; i < kElements; ++i) x[i] *= keep[i / 4];
        tile_set(sums[t], x);
      }
      UNROLL
      for (uint n = 0; n < kKeyTiles; ++n) {
        TileRight<half> right;
        tile_load(right, values + n * 16 * kStride + t * 16, kStride, lane);
        tile_multiply_add(sums[t], weights[n], right);
      }
    }
    if (kCopied) room = room == 0 ? kWords : 0;
  }

  UNROLL
  for (uint h = 0; h < kOwn; ++h) {
    total[h] = tile_row_sum(total[h]);
    if (has_sinks) total[h] += fast::exp2(fma(sinks[head], kLog2E, -most[h]));
  }
  UNROLL
  for (uint t = 0; t < kTiles; ++t) {
    float x[kElements];
    tile_get(sums[t], x);
    UNROLL
    for (uint i = 0; i < kElements; ++i) {
      if (!busy || own + 8 * (i / 4) >= sequence.n_rows) continue;
      const ulong at = (ulong(sequence.first_row + rows[i / 4]) * p.n_heads + head) * kDim;
      out[at + t * 16 + tile_column(lane) + 8 * (i / 2 % 2) + i % 2] = x[i] / total[i / 4];
    }
  }
}

/// Rows of a strip: fewer where heads are long and registers few, more where they are short and K and V are copied.
template <class Format, uint kDim>
struct Strip {
  using Launch = AttentionPrefillLaunch;
  static constant constexpr bool kNarrow = kFewRegisters && kDim >= uint(Launch::kNarrowFrom);
  static constant constexpr bool kWide = IsCopied<Format>::value && kDim <= uint(Launch::kWideTo);
  enum : uint { kRows = kNarrow ? uint(Launch::kNarrowRows) : kWide ? uint(Launch::kWideRows) : uint(Launch::kRows) };
};

#define instantiate_dim(dim, keys, name, Format)                                                \
  instantiate_kernel("attention_prefill_" #name "_" #dim, attention_prefill, Format, dim, keys, \
                     Strip<Format, dim>::kRows)
#define instantiate_format(name, Format) of_part(name, FOUNDRY_PREFILL_DIMS(instantiate_dim, name, Format))

FOUNDRY_PREFILL_FORMATS(instantiate_format)
instantiate_format(any, AnyFormat)
