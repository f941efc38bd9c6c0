// Part of kernels.inl: attention of some queries over one segment, K and V each in any type, read where they lie.

/// What the queries of a tile see of one segment. Inactive queries (none of it) are left out of `index`.
struct Active {
  uint32_t n = 0;
  uint32_t index[kMaxQueries];
  uint64_t begin = ~uint64_t{0}, end = 0;                // the union
  uint64_t common_begin = 0, common_end = ~uint64_t{0};  // the intersection
};

inline const std::byte* page_part(const AttentionSegment& a, uint64_t position, bool v) {
  const uint64_t page = a.pages[position / a.kv.page_tokens];
  return reinterpret_cast<const std::byte*>(page + a.layer * a.kv.layer_stride_bytes +
                                            a.kv_head * a.kv.head_stride_bytes + (v ? a.kv.k_part_bytes : 0));
}

using Scores = float[kMaxQueries][kSegment];

/// Bytes of a token's K or V.
template <DType T>
inline uint64_t row_bytes(uint32_t dim) {
  return uint64_t{dim / BlockSize<T>::elements} * BlockSize<T>::bytes;
}

/// Dims d .. d + n of a token's V.
template <DType T>
inline F16 value_lanes(const std::byte* row, uint32_t d, uint32_t n) {
  constexpr uint32_t elements = BlockSize<T>::elements, bytes = BlockSize<T>::bytes;
  if constexpr (elements == 1)
    return load_as<T>(row + d * bytes, n);
  else
    return Kept<T>::value_lanes(row + d / elements * bytes, d % elements);
}

/// scores[i][t] = q_i . k_t, d ascending; lanes are tokens. Lanes of tokens that no query sees hold anything.
template <DType T, uint32_t N>
inline void dot_keys(const AttentionSegment& a, const Active& active, uint32_t first, Scores& scores) {
  const uint32_t tile = a.kv.tile_tokens, dim = a.kv.head_dim;
  const float* q[N];
  for (uint32_t i = 0; i < N; ++i) q[i] = a.q[active.index[first + i]];
  for (uint64_t t = active.begin / tile * tile; t < active.end; t += tile) {
    const std::byte* keys = page_part(a, t, false) + t % a.kv.page_tokens * row_bytes<T>(dim);
    F16 acc[N];
    for (uint32_t i = 0; i < N; ++i) acc[i] = zero();
    if constexpr (BlockSize<T>::elements == 1) {
      for (uint32_t d = 0; d < dim; ++d) {
        const F16 k = load_as<T>(keys + uint64_t{d} * tile * BlockSize<T>::bytes, tile);
        for (uint32_t i = 0; i < N; ++i) acc[i] = fma(k, set1(q[i][d]), acc[i]);
      }
    } else {
      for (uint32_t d = 0; d < dim; d += BlockSize<T>::elements, keys += uint64_t{tile} * BlockSize<T>::bytes)
        Kept<T>::dot_block(keys, tile, q, d, acc);
    }
    for (uint32_t i = 0; i < N; ++i) store(&scores[active.index[first + i]][t - a.first], acc[i], tile);
  }
}

/// scores become exp(score * scale - max), soft caps before; what a query does not see becomes 0.
inline void softmax(const AttentionSegment& a, uint32_t i, Scores& scores, Partial& partial) {
  const auto begin = static_cast<uint32_t>(a.begin[i] - a.first), end = static_cast<uint32_t>(a.end[i] - a.first);
  const uint32_t from = begin / 16 * 16;
  const F16 nothing = set1(kMinusInfinity), scale = set1(a.cap == 0 ? a.scale : 1.0f);
  if (a.cap != 0)
    for (uint32_t t = from; t < end; t += 16)
      store(&scores[i][t], soft_cap(mul(load(&scores[i][t]), set1(a.scale)), a.cap));
  F16 most = nothing;
  for (uint32_t t = from; t < end; t += 16) {
    const F16 s =
        select(t < begin ? begin - t : 0, end - t < 16 ? end - t : 16, mul(load(&scores[i][t]), scale), nothing);
    store(&scores[i][t], s);
    most = max(s, most);
  }
  partial.max = largest(most);
  const F16 shift = set1(partial.max);
  F16 total = zero();
  for (uint32_t t = from; t < end; t += 16) {
    const F16 p =
        select(t < begin ? begin - t : 0, end - t < 16 ? end - t : 16, exp(sub(load(&scores[i][t]), shift)), zero());
    store(&scores[i][t], p);
    total = add(total, p);
  }
  partial.sum = sum(total);
}

/// out_i += p_i[t] v_t for t in begin .. end, ascending; lanes are dims.
template <DType T, uint32_t N>
inline void sum_values(const AttentionSegment& a, const uint32_t* index, uint64_t begin, uint64_t end,
                       const Scores& scores, Partial* partials) {
  const uint32_t dim = a.kv.head_dim;
  for (uint64_t from = begin; from < end;) {
    const uint64_t page_end = (from / a.kv.page_tokens + 1) * a.kv.page_tokens, to = page_end < end ? page_end : end;
    const std::byte* values = page_part(a, from, true) + from % a.kv.page_tokens * row_bytes<T>(dim);
    for (uint32_t d = 0; d < dim; d += 16) {
      const uint32_t n = dim - d < 16 ? dim - d : 16;
      F16 acc[N];
      for (uint32_t i = 0; i < N; ++i) acc[i] = load(partials[index[i]].out + d, n);
      const std::byte* row = values;
      for (uint64_t t = from; t < to; ++t, row += row_bytes<T>(dim)) {
        const F16 v = value_lanes<T>(row, d, n);
        for (uint32_t i = 0; i < N; ++i) acc[i] = fma(v, set1(scores[index[i]][t - a.first]), acc[i]);
      }
      for (uint32_t i = 0; i < N; ++i) store(partials[index[i]].out + d, acc[i], n);
    }
    from = to;
  }
}

template <DType K, uint32_t N = kQueryTile>
inline void all_keys(const AttentionSegment& a, const Active& active, uint32_t first, Scores& scores) {
  for (; first + N <= active.n; first += N) dot_keys<K, N>(a, active, first, scores);
  if constexpr (N > 1) all_keys<K, N / 2>(a, active, first, scores);
}

template <DType V, uint32_t N = kQueryTile>
inline void all_values(const AttentionSegment& a, const Active& active, uint32_t first, const Scores& scores,
                       Partial* partials) {
  for (; first + N <= active.n; first += N)
    sum_values<V, N>(a, active.index + first, active.common_begin, active.common_end, scores, partials);
  if constexpr (N > 1) all_values<V, N / 2>(a, active, first, scores, partials);
}

/// What only some queries see comes before and behind what all see: each query's own sum still goes up in position.
template <DType V>
inline void weigh_values(const AttentionSegment& a, const Active& active, const Scores& scores, Partial* partials) {
  const bool together = active.common_begin < active.common_end;
  for (uint32_t i = 0; i < active.n; ++i) {
    const uint32_t query = active.index[i];
    sum_values<V, 1>(a, &query, a.begin[query], together ? active.common_begin : a.end[query], scores, partials);
  }
  if (!together) return;
  all_values<V>(a, active, 0, scores, partials);
  for (uint32_t i = 0; i < active.n; ++i) {
    const uint32_t query = active.index[i];
    sum_values<V, 1>(a, &query, active.common_end, a.end[query], scores, partials);
  }
}

inline void dot_all_keys(const AttentionSegment& a, const Active& active, Scores& scores) {
#define FOUNDRY_KEYS(name, Name, number, elements, bytes, kind, linear, table, kv) \
  FOUNDRY_HOST_##kv(case DType::name : return all_keys<DType::name>(a, active, 0, scores);)
  switch (static_cast<DType>(a.kv.k_type)) {
    FOUNDRY_FORMATS(FOUNDRY_KEYS)
    default:
      return;
  }
#undef FOUNDRY_KEYS
}

inline void weigh_all_values(const AttentionSegment& a, const Active& active, const Scores& scores, Partial* partials) {
#define FOUNDRY_VALUES(name, Name, number, elements, bytes, kind, linear, table, kv) \
  FOUNDRY_HOST_##kv(case DType::name : return weigh_values<DType::name>(a, active, scores, partials);)
  switch (static_cast<DType>(a.kv.v_type)) {
    FOUNDRY_FORMATS(FOUNDRY_VALUES)
    default:
      return;
  }
#undef FOUNDRY_VALUES
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
