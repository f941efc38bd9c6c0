// Part of attention.inl: what queries see of a segment, where its K and V lie, and how queries are tiled.

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
/// asked for between the products, for the processor's own prefetching begins anew with every page and head. No more
/// than advice: an address past the end does no harm.
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

/// Calls f<N>(first) for tiles of N queries, 1 to kQueryTile, as few and as like in size as can be: 7 are one tile, 9
/// are 4 and 5. A query's own sums are the same in any tile.
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
