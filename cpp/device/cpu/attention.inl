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

inline uint64_t row_bytes_of(uint32_t type, uint32_t dim) {
#define FOUNDRY_ROW(name, Name, number, elements, bytes, kind, linear, table, kv) \
  FOUNDRY_HOST_##kv(case DType::name : return row_bytes<DType::name>(dim);)
  switch (static_cast<DType>(type)) {
    FOUNDRY_FORMATS(FOUNDRY_ROW)
    default:
      return 0;
  }
#undef FOUNDRY_ROW
}

/// What is read soon, while K of the tokens from t on is: K of those kTokens further on, and their own V. Its lines are
/// asked for between the products, for the processor's own prefetching begins anew with every page and head. No more than
/// advice: an address past the end does no harm.
struct Soon {
  static constexpr uint32_t kTokens = 64;
  const std::byte *k, *v;
  uint64_t k_step, v_step;  // bytes of sixteen tokens and one dim

  Soon(const AttentionSegment& a, uint64_t t, uint64_t end, uint64_t k_row, uint64_t v_row)
      : v(page_part(a, t, true) + t % a.kv.page_tokens * v_row),
        k_step(16 * k_row / a.kv.head_dim),
        v_step(16 * v_row / a.kv.head_dim) {
    const uint64_t soon = t + kTokens;
    k = soon < end ? page_part(a, soon, false) + soon % a.kv.page_tokens * k_row : v;
  }
  void prefetch(uint64_t dim) const {
    __builtin_prefetch(k + dim * k_step);
    __builtin_prefetch(v + dim * v_step);
  }
};

/// Whether K of the type is scored by byte dot products.
template <DType K>
constexpr bool dots() {
  if constexpr (BlockSize<K>::elements != 1) return Kept<K>::kDots;
  return false;
}

/// A query as K's type takes it: f32, or blocks of two bytes with what makes up for the offset of K's codes.
struct Query {
  const float* x;
  const int8_t* q;
  const float* scales;
  int32_t starts[kMaxHeadDim / kBlock];
};
template <DType K>
inline Query query_of(const AttentionSegment& a, uint32_t i) {
  Query query;
  query.x = a.q[i];
  if constexpr (dots<K>()) {
    query.q = a.quant.q + a.quant_block[i] * kQuantBytes;
    query.scales = a.quant.scales + a.quant_block[i];
    const int32_t* sums = a.quant.sums + 2 * a.quant_block[i];
    for (uint32_t b = 0; b < a.kv.head_dim / kBlock; ++b)
      query.starts[b] = -Kept<K>::kOffset * (sums[2 * b] + sums[2 * b + 1]);
  }
  return query;
}

/// part[i] = q_i . k over block b without K's scale, for n tokens as lanes: exact sums of byte products, times the query's
/// scale.
template <DType T, uint32_t N>
inline void dot_codes(const std::byte* codes, uint32_t n, const Query* q, uint32_t b, F16* part) {
  using Format = Kept<T>;
  if constexpr (N > kDotQueries) {
    dot_codes<T, kDotQueries>(codes, n, q, b, part);
    dot_codes<T, N - kDotQueries>(codes, n, q + kDotQueries, b, part + kDotQueries);
  } else {
    constexpr uint32_t kGroups = kBlock / 4 / Format::kFours;
    Dots coarse[N], fine[N];
    FOUNDRY_UNROLL
    for (uint32_t i = 0; i < N; ++i) {
      coarse[i] = dots_from(izero());
      fine[i] = dots_from(iset1(q[i].starts[b]));
    }
    FOUNDRY_UNROLL
    for (uint32_t g = 0; g < kGroups; ++g) {
      Bytes k[Format::kFours];
      Format::fours(codes + uint64_t{g} * 4 * n, n, k);
      FOUNDRY_UNROLL
      for (uint32_t f = 0; f < Format::kFours; ++f) FOUNDRY_UNROLL
      for (uint32_t i = 0; i < N; ++i) {
        const int8_t* of_block = q[i].q + b * kQuantBytes + 4 * (g + f * kGroups);
        Format::accumulate(coarse[i], k[f], four(of_block));
        Format::accumulate(fine[i], k[f], four(of_block + kBlock));
      }
      if constexpr (Format::kMost != 0)
        if (g + 1 == kGroups || full_after(g + 1, Format::kMost)) FOUNDRY_UNROLL
      for (uint32_t i = 0; i < N; ++i) settle(coarse[i]), settle(fine[i]);
    }
    FOUNDRY_UNROLL
    for (uint32_t i = 0; i < N; ++i)
      part[i] = mul(to_float(iadd(shift_left7(coarse[i].settled), fine[i].settled)), set1(q[i].scales[b]));
  }
}

/// The same in f32.
template <DType T, uint32_t N>
inline void dot_widened(const std::byte* codes, uint32_t n, const Query* q, uint32_t b, F16* part) {
  using Format = Kept<T>;
  constexpr uint32_t kGroups = kBlock / 4 / Format::kFours;
  for (uint32_t i = 0; i < N; ++i) part[i] = zero();
  for (uint32_t g = 0; g < kGroups; ++g) {
    const auto add_dim = [&]<int j>() {
      F16 k[Format::kFours];
      Format::template widen<j>(codes + uint64_t{g} * 4 * n, n, k);
      FOUNDRY_UNROLL
      for (uint32_t f = 0; f < Format::kFours; ++f) FOUNDRY_UNROLL
      for (uint32_t i = 0; i < N; ++i)
        part[i] = fma(k[f], set1(q[i].x[b * kBlock + 4 * (g + f * kGroups) + j]), part[i]);
    };
    add_dim.template operator()<0>();
    add_dim.template operator()<1>();
    add_dim.template operator()<2>();
    add_dim.template operator()<3>();
  }
}

/// acc[i] += q_i . k over block b. The sum of the block first, then K's scale.
template <DType T, uint32_t N>
inline void dot_block(const std::byte* block, uint32_t n, const Query* q, uint32_t b, F16* acc) {
  const std::byte* codes = block + n * sizeof(uint16_t);
  F16 part[N];
  if constexpr (Kept<T>::kDots)
    dot_codes<T, N>(codes, n, q, b, part);
  else
    dot_widened<T, N>(codes, n, q, b, part);
  const F16 scale = load_f16(reinterpret_cast<const uint16_t*>(block), n);
  FOUNDRY_UNROLL
  for (uint32_t i = 0; i < N; ++i) acc[i] = fma(scale, part[i], acc[i]);
}

/// scores[i][t] = q_i . k_t, d ascending, of U tiles side by side in a page at once; lanes are tokens. Lanes of tokens that
/// no query sees hold anything.
template <DType T, uint32_t N, uint32_t U>
inline void dot_tiles(const AttentionSegment& a, const Active& active, uint32_t first, uint32_t tile, Scores& scores) {
  constexpr uint32_t kElements = BlockSize<T>::elements, kBytes = BlockSize<T>::bytes;
  const uint32_t dim = a.kv.head_dim;
  const uint64_t k_row = row_bytes<T>(dim), v_row = row_bytes_of(a.kv.v_type, dim), next = k_row * tile;
  Query q[N];
  for (uint32_t i = 0; i < N; ++i) q[i] = query_of<T>(a, active.index[first + i]);
  for (uint64_t t = active.begin / (U * tile) * (U * tile); t < active.end; t += U * tile) {
    const std::byte* keys = page_part(a, t, false) + t % a.kv.page_tokens * k_row;
    const Soon soon(a, t, active.end, k_row, v_row);
    F16 acc[U][N];
    FOUNDRY_UNROLL
    for (uint32_t u = 0; u < U; ++u) FOUNDRY_UNROLL
    for (uint32_t i = 0; i < N; ++i) acc[u][i] = zero();
    if constexpr (kElements == 1) {
      for (uint32_t d = 0; d < dim; ++d, keys += uint64_t{tile} * kBytes) {
        if (d % 2 == 0) soon.prefetch(d);
        F16 k[U];
        FOUNDRY_UNROLL
        for (uint32_t u = 0; u < U; ++u) k[u] = load_as<T>(keys + u * next, tile);
        FOUNDRY_UNROLL
        for (uint32_t i = 0; i < N; ++i) {
          const F16 x = set1(q[i].x[d]);
          FOUNDRY_UNROLL
          for (uint32_t u = 0; u < U; ++u) acc[u][i] = fma(k[u], x, acc[u][i]);
        }
      }
    } else {
      for (uint32_t b = 0; b < dim / kElements; ++b, keys += uint64_t{tile} * kBytes) {
        for (uint32_t ahead = 0; ahead < kElements; ahead += 4) soon.prefetch(b * kElements + ahead);
        FOUNDRY_UNROLL
        for (uint32_t u = 0; u < U; ++u) dot_block<T, N>(keys + u * next, tile, q, b, acc[u]);
      }
    }
    for (uint32_t u = 0; u < U; ++u)
      for (uint32_t i = 0; i < N; ++i) store(&scores[active.index[first + i]][t + u * tile - a.first], acc[u][i], tile);
  }
}

/// As many tiles at once as keep the multipliers busy.
template <DType T, uint32_t N>
inline void dot_keys(const AttentionSegment& a, const Active& active, uint32_t first, Scores& scores) {
  constexpr uint32_t U = kSums / N >= 14 ? 4 : kSums / N >= 6 ? 2 : 1;
  if (a.kv.tile_tokens != kLanes) return dot_tiles<T, N, 1>(a, active, first, a.kv.tile_tokens, scores);
  if (U != 1 && a.kv.page_tokens % (U * kLanes) == 0) return dot_tiles<T, N, U>(a, active, first, kLanes, scores);
  dot_tiles<T, N, 1>(a, active, first, kLanes, scores);
}

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

/// Tokens of a page whose V is summed: from .. to, the first of them at `at`.
struct Values {
  const std::byte* at;
  uint64_t row, n;  // bytes of a token's, and tokens
};

/// out_i += p_i[t] v_t for the tokens in turn; lanes are dims, of which C sixteens are summed at once. Sums are those of
/// kLifted times V where its type has blocks.
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

/// The same of blocks, whose scales are multiplied into the weights, sixteen tokens at a time, and so once for all dims.
template <DType T, uint32_t N, uint32_t C>
inline void sum_block_dims(const Values& values, const float* const (&p)[N], uint32_t d, F16 (&acc)[C][N]) {
  constexpr uint32_t kBytes = BlockSize<T>::bytes, kBlocks = (16 * C + kBlock - 1) / kBlock;
  const std::byte* at = values.at + d / kBlock * kBytes;
  for (uint64_t t = 0; t < values.n; t += 16) {
    const auto n = static_cast<uint32_t>(values.n - t < 16 ? values.n - t : 16);
    float weights[kBlocks][N][16];
    for (uint32_t b = 0; b < kBlocks; ++b) {
      uint16_t scales[16] = {};
      for (uint32_t i = 0; i < n; ++i) __builtin_memcpy(scales + i, at + i * values.row + b * kBytes, 2);
      const F16 lifted = mul(load_f16(scales), set1(kLifted));
      for (uint32_t i = 0; i < N; ++i) store(weights[b][i], mul(load(p[i] + t, n), lifted));
    }
    for (uint32_t i = 0; i < n; ++i, at += values.row) {
      F16 v[C];
      FOUNDRY_UNROLL
      for (uint32_t c = 0; c < C; ++c)
        v[c] = Kept<T>::values(at + c / 2 * kBytes + sizeof(uint16_t), (d + 16 * c) % kBlock);
      FOUNDRY_UNROLL
      for (uint32_t c = 0; c < C; ++c) FOUNDRY_UNROLL
      for (uint32_t j = 0; j < N; ++j) acc[c][j] = fma(v[c], set1(weights[c / 2][j][i]), acc[c][j]);
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

/// Calls f<N>(first) for tiles of N queries, 1 to kQueryTile, as few and as like in size as can be: 7 are one tile, 9 are 4
/// and 5. A query's own sums are the same in any tile.
template <uint32_t N = kQueryTile, class F>
inline void exactly(uint32_t n, uint32_t first, const F& f) {
  if constexpr (N > 1)
    if (n < N) return exactly<N - 1>(n, first, f);
  f.template operator()<N>(first);
}
template <class F>
inline void in_tiles(uint32_t n, const F& f) {
  const uint32_t tiles = (n + kQueryTile - 1) / kQueryTile;
  for (uint32_t t = 0; t < tiles; ++t) exactly(n * (t + 1) / tiles - n * t / tiles, n * t / tiles, f);
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

template <DType K>
inline void all_keys(const AttentionSegment& a, const Active& active, Scores& scores) {
  in_tiles(active.n, [&]<uint32_t N>(uint32_t first) { dot_keys<K, N>(a, active, first, scores); });
}

bool dots_keys(uint32_t type) {
#define FOUNDRY_DOTS(name, Name, number, elements, bytes, kind, linear, table, kv) \
  FOUNDRY_HOST_##kv(case DType::name : return dots<DType::name>();)
  switch (static_cast<DType>(type)) {
    FOUNDRY_FORMATS(FOUNDRY_DOTS)
    default:
      return false;
  }
#undef FOUNDRY_DOTS
}

inline void dot_all_keys(const AttentionSegment& a, const Active& active, Scores& scores) {
#define FOUNDRY_KEYS(name, Name, number, elements, bytes, kind, linear, table, kv) \
  FOUNDRY_HOST_##kv(case DType::name : return all_keys<DType::name>(a, active, scores);)
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
