// Part of kernels.inl: attention of some queries over one segment, K and V each in any type, and what joins segments.

#include "device/cpu/attention_segment.inl"
//
#include "device/cpu/attention_keys.inl"
#include "device/cpu/attention_values.inl"

/// scores become exp(score * scale - max), soft caps before; what a query does not see becomes 0.
inline void softmax(const AttentionSegment& a, uint32_t i, Scores& scores, Partial& partial) {
  const auto begin = static_cast<uint32_t>(a.begin[i] - a.first), end = static_cast<uint32_t>(a.end[i] - a.first);
  const uint32_t from = begin / 16 * 16;
  const F16 nothing = set1(kMinusInfinity), scale = set1(a.cap == 0 ? a.scale : 1.0f);
  const auto seen = [&](uint32_t t, F16 x, F16 otherwise) {  // mostly all sixteen are
    if (begin <= t && t + 16 <= end) return x;
    return select(t < begin ? begin - t : 0, end - t < 16 ? end - t : 16, x, otherwise);
  };
  if (a.cap != 0)
    for (uint32_t t = from; t < end; t += 16)
      store(&scores[i][t], soft_cap(mul(load(&scores[i][t]), set1(a.scale)), a.cap));
  F16 most = nothing;
  for (uint32_t t = from; t < end; t += 16) {
    const F16 s = seen(t, mul(load(&scores[i][t]), scale), nothing);
    store(&scores[i][t], s);
    most = max(s, most);
  }
  partial.max = largest(most);
  const F16 shift = set1(partial.max);
  F16 total = zero();
  for (uint32_t t = from; t < end; t += 16) {
    const F16 p = seen(t, exp(sub(load(&scores[i][t]), shift)), zero());
    store(&scores[i][t], p);
    total = add(total, p);
  }
  partial.sum = sum(total);
}

void attention(const AttentionSegment& a, Partial* partials) {
  Active active;
  for (uint32_t i = 0; i < a.n_queries; ++i) {
    partials[i].seen = a.begin[i] < a.end[i] ? 1 : 0;
    if (partials[i].seen == 0) continue;
    active.index[active.n++] = i;
    active.begin = a.begin[i] < active.begin ? a.begin[i] : active.begin;
    active.end = a.end[i] > active.end ? a.end[i] : active.end;
    active.common_begin = a.begin[i] > active.common_begin ? a.begin[i] : active.common_begin;
    active.common_end = a.end[i] < active.common_end ? a.end[i] : active.common_end;
    for (uint32_t d = 0; d < a.kv.head_dim; ++d) partials[i].out[d] = 0;
  }
  if (active.n == 0) return;
  alignas(64) Scores scores;
  dot_all_keys(a, active, scores);
  for (uint32_t i = 0; i < active.n; ++i) softmax(a, active.index[i], scores, partials[active.index[i]]);
  weigh_all_values(a, active, scores, partials);
}

/// One fixed formula, segments in ascending order.
void merge(Partial& into, const Partial& next, uint32_t head_dim) {
  if (next.seen == 0) return;
  if (into.seen == 0) {
    into.max = next.max;
    into.sum = next.sum;
    into.seen = 1;
    for (uint32_t d = 0; d < head_dim; ++d) into.out[d] = next.out[d];
    return;
  }
  const float most = next.max > into.max ? next.max : into.max;
  const float keep = exp(into.max - most), take = exp(next.max - most);
  into.sum = into.sum * keep + next.sum * take;
  into.max = most;
  for (uint32_t d = 0; d < head_dim; d += 8)
    for (uint32_t i = d; i < d + 8; ++i) into.out[i] = into.out[i] * keep + next.out[i] * take;
}

void finish(const Partial& partial, float* out, uint32_t head_dim) {
  for (uint32_t d = 0; d < head_dim; ++d) out[d] = partial.out[d] / partial.sum;
}
