#include "device/gpu/attention_shape.h"

#include <algorithm>
#include <string_view>

#include "launch.h"

namespace foundry {
namespace {

constexpr uint64_t kMostPartials = uint64_t{64} << 20;  // bytes

}  // namespace

uint32_t prefill_rows(const KvParams& kv, bool half_tiles) {
#define FOUNDRY_IS_DIM(dim, ...) kv.head_dim == dim ||
  const bool there = FOUNDRY_PREFILL_DIMS(FOUNDRY_IS_DIM) false;
#undef FOUNDRY_IS_DIM
  return half_tiles && there ? uint32_t{AttentionPrefillLaunch::kRows} : UINT32_MAX;
}

uint32_t decode_lanes(uint32_t head_dim) {
  uint32_t found = 0;
#define FOUNDRY_HOLDS(lanes, ...) \
  if (found == 0 && head_dim <= lanes * AttentionDecodeLaunch::kDims) found = lanes;
  FOUNDRY_DECODE_LANES(FOUNDRY_HOLDS)
#undef FOUNDRY_HOLDS
  return found;
}

uint32_t prefill_strip(const KvParams& kv, bool few_registers) {
  using Launch = AttentionPrefillLaunch;
  const uint32_t rows = Launch::kRows, narrow = Launch::kNarrowRows, wide = Launch::kWideRows;
  if (few_registers) return kv.head_dim >= Launch::kNarrowFrom ? narrow : rows;
  const bool copied = kv_format(kv, false) != std::string_view("any");
  return copied && kv.head_dim <= Launch::kWideTo ? wide : rows;
}

uint32_t decode_queries(uint32_t per_kv_head, uint32_t lanes, bool few_registers) {
  if (few_registers && lanes >= AttentionDecodeLaunch::kNarrowLanes)
    per_kv_head = std::min(per_kv_head, uint32_t{AttentionDecodeLaunch::kNarrowQueries});
  uint32_t found = 0;
#define FOUNDRY_TAKES(queries, ...) \
  if (found < per_kv_head) found = queries;
  FOUNDRY_DECODE_QUERIES(FOUNDRY_TAKES)
#undef FOUNDRY_TAKES
  return found;
}

const char* kv_format(const KvParams& kv, bool decode) {
#define FOUNDRY_IS_FORMAT(name, ...) \
  if (kv.k_type == static_cast<u32>(DType::name)) return #name;
  if (kv.k_type != kv.v_type) return "any";
  if (decode) {
    FOUNDRY_DECODE_FORMATS(FOUNDRY_IS_FORMAT)
  } else {
    FOUNDRY_PREFILL_FORMATS(FOUNDRY_IS_FORMAT)
  }
#undef FOUNDRY_IS_FORMAT
  return "any";
}

uint64_t row_partials(uint64_t n_heads, uint64_t head_dim) {
  return n_heads * AttentionDecodeLaunch::kMostSplits * (head_dim + 2) * sizeof(float);
}

uint64_t wave_rows(const StepShape& shape) {
  const uint64_t row = row_partials(shape.n_heads, shape.head_dim);
  return row == 0 ? 1 : std::clamp<uint64_t>(kMostPartials / row, 1, std::max<uint32_t>(shape.max_rows, 1));
}

AttentionCall attention_call(const AttentionArgs& args, uint32_t prefill) {
  AttentionCall call;
  for (uint32_t s = 0; s < args.p.n_sequences; ++s) {
    const uint32_t n = args.sequences[s].n_rows;
    const uint64_t end = uint64_t{args.sequences[s].start} + n;
    call.end = std::max(call.end, end);
    call.most_rows = std::max(call.most_rows, n);
    ++(n >= prefill ? call.prefills : call.decodes);
    (n >= prefill ? call.prefill_seen : call.decode_seen) += static_cast<double>(n * end);
  }
  call.products_of_seen = 2.0 * args.p.n_heads * args.kv.head_dim;
  call.bytes_of_seen = 2.0 * args.kv.n_kv_heads * args.kv.head_dim * 2.0;  // as f16
  return call;
}

}  // namespace foundry
