// Part of attention.inl: queries times K of any type, read where it lies.

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

/// part[i] = q_i . k over block b without K's scale, for n tokens as lanes: exact sums of byte products, times the
/// query's scale.
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

/// scores[i][t] = q_i . k_t, d ascending, of U tiles side by side in a page at once; lanes are tokens. Lanes of tokens
/// that no query sees hold anything.
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
