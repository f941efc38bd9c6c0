// Which instances of the attention kernels a call takes, and how it is cut: into rows of the one and of the other, and
// into waves.
#pragma once
#include "device/device.h"

namespace foundry {

/// From so many rows on a sequence has the kernel with matrix tiles, where there is one.
uint32_t prefill_rows(const KvParams& kv, bool half_tiles);
/// Lanes that have a head between them: as few as hold it.
uint32_t decode_lanes(uint32_t head_dim);
/// Rows of a query head that a simdgroup of that kernel has.
uint32_t prefill_strip(const KvParams& kv, bool few_registers);
/// Query heads of a threadgroup: as few as a KV head has, or the most that lanes take.
uint32_t decode_queries(uint32_t per_kv_head, uint32_t lanes, bool few_registers);
/// Which instance: of one type of its own, or of any two.
const char* kv_format(const KvParams& kv, bool decode);

/// Bytes that the splits of a row leave for the merge.
uint64_t row_partials(uint64_t n_heads, uint64_t head_dim);
/// Rows of a wave: more go one wave after the other, so that what they leave keeps within bounds.
uint64_t wave_rows(const StepShape& shape);

/// What a call has to do, by the kernel that does it.
struct AttentionCall {
  uint64_t end = 1;                                // one past the last position
  uint32_t most_rows = 0;                          // of a sequence
  uint32_t prefills = 0, decodes = 0;              // sequences
  double prefill_seen = 0, decode_seen = 0;        // positions that their rows see, about
  double products_of_seen = 0, bytes_of_seen = 0;  // a position, for a row by itself
};
AttentionCall attention_call(const AttentionArgs& args, uint32_t prefill);

}  // namespace foundry
