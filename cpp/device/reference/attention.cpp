// kv_append and attention. Segments of segment_tokens from position 0, each from a fresh (max, sum, out), merged in
// ascending order: the online softmax of FlashAttention-2 (arXiv:2307.08691, alg. 1), in double.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "device/reference/ops.h"
#include "device/reference/pages.h"

namespace foundry::reference {
namespace {

struct Partial {
  double max = -std::numeric_limits<double>::infinity();
  double sum = 0;
  std::vector<double> out;
};

/// Positions begin .. end of one segment.
Partial segment(const AttentionArgs& args, const SequenceParams& sequence, u32 kv_head, const float* q, u64 begin,
                u64 end) {
  const KvParams& kv = args.kv;
  Partial partial;
  partial.out.assign(kv.head_dim, 0);
  std::vector<double> scores(end - begin);
  for (u64 t = begin; t < end; ++t) {
    double dot = 0;
    for (u32 d = 0; d < kv.head_dim; ++d)
      dot += static_cast<double>(q[d]) * load(kv, sequence, args.p.layer, kv_head, Part::k, t, d);
    scores[t - begin] = dot * args.p.scale;
    if (args.p.cap != 0) scores[t - begin] = soft_cap(scores[t - begin], args.p.cap);
    partial.max = std::max(partial.max, scores[t - begin]);
  }
  for (u64 t = begin; t < end; ++t) {
    const double p = std::exp(scores[t - begin] - partial.max);
    partial.sum += p;
    for (u32 d = 0; d < kv.head_dim; ++d)
      partial.out[d] += p * load(kv, sequence, args.p.layer, kv_head, Part::v, t, d);
  }
  return partial;
}

void merge(Partial& into, const Partial& next) {
  const double max = std::max(into.max, next.max);
  const double keep = std::exp(into.max - max), take = std::exp(next.max - max);
  for (size_t d = 0; d < into.out.size(); ++d) into.out[d] = into.out[d] * keep + next.out[d] * take;
  into.sum = into.sum * keep + next.sum * take;
  into.max = max;
}

}  // namespace

void kv_append(const KvAppendArgs& args) {
  const KvParams& kv = args.kv;
  const u64 width = u64{kv.n_kv_heads} * kv.head_dim;
  for (u32 s = 0; s < args.n_sequences; ++s) {
    const SequenceParams& sequence = args.sequences[s];
    for (u32 r = 0; r < sequence.n_rows; ++r) {
      const u64 row = sequence.first_row + r, position = u64{sequence.start} + r;
      for (u32 h = 0; h < kv.n_kv_heads; ++h) {
        const u64 at = row * width + u64{h} * kv.head_dim;
        store(kv, sequence, args.layer, h, Part::k, position, args.k.as<float>() + at);
        store(kv, sequence, args.layer, h, Part::v, position, args.v.as<float>() + at);
      }
    }
  }
}

void attention(const AttentionArgs& args) {
  const KvParams& kv = args.kv;
  const u32 per_kv_head = args.p.n_heads / kv.n_kv_heads;
  for (u32 s = 0; s < args.p.n_sequences; ++s) {
    const SequenceParams& sequence = args.sequences[s];
    for (u32 r = 0; r < sequence.n_rows; ++r) {
      const u64 end = u64{sequence.start} + r + 1;
      const u64 begin = args.p.window != 0 && end > args.p.window ? end - args.p.window : 0;
      for (u32 h = 0; h < args.p.n_heads; ++h) {
        const u64 at = ((u64{sequence.first_row} + r) * args.p.n_heads + h) * kv.head_dim;
        Partial total;
        total.out.assign(kv.head_dim, 0);
        for (u64 from = begin / args.p.segment_tokens * args.p.segment_tokens; from < end;
             from += args.p.segment_tokens)
          merge(total, segment(args, sequence, h / per_kv_head, args.q.as<float>() + at, std::max(from, begin),
                               std::min<u64>(from + args.p.segment_tokens, end)));
        if (args.sinks != nullptr) {
          Partial sink;
          sink.max = reinterpret_cast<const float*>(args.sinks->mapped)[h], sink.sum = 1;
          sink.out.assign(kv.head_dim, 0);
          merge(total, sink);
        }
        for (u32 d = 0; d < kv.head_dim; ++d)
          args.out.as<float>()[at + d] = static_cast<float>(total.out[d] / total.sum);
      }
    }
  }
}

}  // namespace foundry::reference
