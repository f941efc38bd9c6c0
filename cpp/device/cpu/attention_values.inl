// Part of attention.inl: V of any type, weighed and summed where it lies.

/// Tokens of a page whose V is summed: from .. to, the first of them at `at`.
struct Values {
  const std::byte* at;
  uint64_t row, n;  // bytes of a token's, and tokens
};

/// out_i += p_i[t] v_t for the tokens in turn; lanes are dims, of which C sixteens are summed at once. Sums are those
/// of kLifted times V where its type has blocks.
template <DType T, uint32_t N, uint32_t C>
inline void sum_plain_dims(const Values& values, const float* const (&p)[N], uint32_t d, uint32_t n, F16 (&acc)[C][N]) {
  const std::byte* at = values.at + d * BlockSize<T>::bytes;
  for (uint64_t t = 0; t < values.n; ++t, at += values.row) {
    F16 v[C];
    FOUNDRY_UNROLL
    for (uint32_t c = 0; c < C; ++c) v[c] = load_as<T>(at + 16 * c * BlockSize<T>::bytes, n);
    FOUNDRY_UNROLL
    for (uint32_t i = 0; i < N; ++i) {
      const F16 weight = set1(p[i][t]);
      FOUNDRY_UNROLL
      for (uint32_t c = 0; c < C; ++c) acc[c][i] = fma(v[c], weight, acc[c][i]);
    }
  }
}

/// A weight times a block's scale must not be subnormal, which processors multiply slowly: the least weight there is,
/// e^-87.3, times the least scale, 2^-24, times this is not.
constexpr float kLifted = 0x1p24f;

/// The same of blocks, whose scales are multiplied into the weights, sixteen tokens at a time, and so once for all
/// dims.
template <DType T, uint32_t N, uint32_t C>
inline void sum_block_dims(const Values& values, const float* const (&p)[N], uint32_t d, F16 (&acc)[C][N]) {
  static_assert(16 * C <= kBlock);
  const std::byte* at = values.at + d / kBlock * BlockSize<T>::bytes;
  for (uint64_t t = 0; t < values.n; t += 16) {
    const auto n = static_cast<uint32_t>(values.n - t < 16 ? values.n - t : 16);
    uint16_t scales[16] = {};
    for (uint32_t i = 0; i < n; ++i) __builtin_memcpy(scales + i, at + i * values.row, sizeof(uint16_t));
    const F16 lifted = mul(load_f16(scales), set1(kLifted));
    alignas(64) float weights[N][16];
    for (uint32_t i = 0; i < N; ++i) store(weights[i], mul(load(p[i] + t, n), lifted));
    for (uint32_t i = 0; i < n; ++i, at += values.row) {
      F16 v[C];
      FOUNDRY_UNROLL
      for (uint32_t c = 0; c < C; ++c) v[c] = Kept<T>::values(at + sizeof(uint16_t), (d + 16 * c) % kBlock);
      FOUNDRY_UNROLL
      for (uint32_t c = 0; c < C; ++c) FOUNDRY_UNROLL
      for (uint32_t j = 0; j < N; ++j) acc[c][j] = fma(v[c], set1(weights[j][i]), acc[c][j]);
    }
  }
}

template <DType T, uint32_t N, uint32_t C>
inline void sum_some_dims(const Values& values, const uint32_t* index, const float* const (&p)[N], uint32_t first,
                          uint32_t last, Partial* partials) {
  for (uint32_t d = first; d < last; d += 16 * C) {
    const uint32_t n = C == 1 && last - d < 16 ? last - d : 16;
    F16 acc[C][N];
    FOUNDRY_UNROLL
    for (uint32_t c = 0; c < C; ++c) FOUNDRY_UNROLL
    for (uint32_t i = 0; i < N; ++i) acc[c][i] = load(partials[index[i]].out + d + 16 * c, n);
    if constexpr (BlockSize<T>::elements == 1)
      sum_plain_dims<T, N, C>(values, p, d, n, acc);
    else
      sum_block_dims<T, N, C>(values, p, d, acc);
    FOUNDRY_UNROLL
    for (uint32_t c = 0; c < C; ++c) FOUNDRY_UNROLL
    for (uint32_t i = 0; i < N; ++i) store(partials[index[i]].out + d + 16 * c, acc[c][i], n);
  }
}

template <DType T, uint32_t N>
inline void sum_values(const AttentionSegment& a, const uint32_t* index, uint64_t begin, uint64_t end,
                       const Scores& scores, Partial* partials) {
  constexpr bool kPlain = BlockSize<T>::elements == 1;
  constexpr uint32_t C = kPlain && kSums / N >= 4 ? 4 : kSums / N >= 2 ? 2 : 1;  // a block at a time
  const uint32_t dim = a.kv.head_dim, together = dim / (16 * C) * (16 * C);
  for (uint64_t from = begin; from < end;) {
    const uint64_t page_end = (from / a.kv.page_tokens + 1) * a.kv.page_tokens, to = page_end < end ? page_end : end;
    const uint64_t row = row_bytes<T>(dim);
    const Values values = {page_part(a, from, true) + from % a.kv.page_tokens * row, row, to - from};
    const float* p[N];
    for (uint32_t i = 0; i < N; ++i) p[i] = &scores[index[i]][from - a.first];
    sum_some_dims<T, N, C>(values, index, p, 0, together, partials);
    sum_some_dims<T, N, 1>(values, index, p, together, dim, partials);
    from = to;
  }
}

/// What only some queries see comes before and behind what all see: each query's own sum still goes up in position.
template <DType V>
inline void weigh_all(const AttentionSegment& a, const Active& active, const Scores& scores, Partial* partials) {
  const bool together = active.common_begin < active.common_end;
  for (uint32_t i = 0; i < active.n; ++i) {
    const uint32_t query = active.index[i];
    sum_values<V, 1>(a, &query, a.begin[query], together ? active.common_begin : a.end[query], scores, partials);
  }
  if (!together) return;
  in_tiles(active.n, [&]<uint32_t N>(uint32_t first) {
    sum_values<V, N>(a, active.index + first, active.common_begin, active.common_end, scores, partials);
  });
  for (uint32_t i = 0; i < active.n; ++i) {
    const uint32_t query = active.index[i];
    sum_values<V, 1>(a, &query, active.common_end, a.end[query], scores, partials);
  }
}

template <DType V>
inline void weigh_values(const AttentionSegment& a, const Active& active, const Scores& scores, Partial* partials) {
  weigh_all<V>(a, active, scores, partials);
  if constexpr (BlockSize<V>::elements != 1)
    for (uint32_t i = 0; i < active.n; ++i)
      for (float* out = partials[active.index[i]].out; out < partials[active.index[i]].out + a.kv.head_dim; out += 16)
        store(out, mul(load(out), set1(1 / kLifted)));
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
