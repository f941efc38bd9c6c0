// Part of kernels.inl: linear layers, sixteen outputs at a time, and the panels that they read (formats/formats.inl).

/// Adds the products of pair i of a part's groups, the n-th of those that share a scale, for R rows whose blocks are
/// `stride` bytes apart. (FOUNDRY_UNROLL is for loops of few rounds, whose arrays are to be registers.)
template <class Format, uint32_t i, uint32_t R>
inline void add_pair(const std::byte* w, uint32_t part, const int8_t* q, uint64_t stride, Dots (&coarse)[R],
                     Dots (&fine)[R]) {
  constexpr uint32_t kFirst = Format::kApart == 1 ? 2 * i : i, kSecond = kFirst + Format::kApart;
  constexpr uint32_t kPairs = 4 / Format::kHalves, kNth = i % kPairs + 1;
  Bytes k[2];
  Format::template pair<i>(w, part, k);
  FOUNDRY_UNROLL
  for (uint32_t r = 0; r < R; ++r) {
    const int8_t* of_row = q + r * stride;
    Format::accumulate(coarse[r], k[0], four(of_row + 4 * kFirst));
    Format::accumulate(fine[r], k[0], four(of_row + kBlock + 4 * kFirst));
    Format::accumulate(coarse[r], k[1], four(of_row + 4 * kSecond));
    Format::accumulate(fine[r], k[1], four(of_row + kBlock + 4 * kSecond));
    if constexpr (Format::kMost != 0)
      if constexpr (kNth == kPairs || full_after(kNth, Format::kMost)) settle(coarse[r]), settle(fine[r]);
  }
}

/// What shares a scale: a part, or the first or last 16 k of it. `b` is the block of activations of the first row.
template <DType T, uint32_t half, uint32_t R>
inline void add_group(const LinearPanel& a, uint64_t b, uint64_t n_blocks, const std::byte* w, uint32_t part,
                      F16* acc) {
  using Format = Packed<T>;
  const int8_t* q = a.quant.q + b * kQuantBytes;
  const uint64_t stride = n_blocks * kQuantBytes;
  int32_t q_sums[R];
  Dots coarse[R], fine[R];
  FOUNDRY_UNROLL
  for (uint32_t r = 0; r < R; ++r) {
    const int32_t* sums = a.quant.sums + 2 * (b + r * n_blocks);
    q_sums[r] = Format::kHalves == 2 ? sums[half] : sums[0] + sums[1];
    coarse[r] = dots_from(izero());
    fine[r] = dots_from(iset1(-Format::kOffset * q_sums[r]));
  }
  if constexpr (Format::kHalves == 1 || half == 0) {
    add_pair<Format, 0>(w, part, q, stride, coarse, fine);
    add_pair<Format, 1>(w, part, q, stride, coarse, fine);
  }
  if constexpr (Format::kHalves == 1 || half == 1) {
    add_pair<Format, 2>(w, part, q, stride, coarse, fine);
    add_pair<Format, 3>(w, part, q, stride, coarse, fine);
  }
  const F16 d = Format::scale(w, part, half);
  FOUNDRY_UNROLL
  for (uint32_t r = 0; r < R; ++r) {
    const I16 sum = iadd(shift_left7(coarse[r].settled), fine[r].settled);
    const float scale = a.quant.scales[b + r * n_blocks];
    add_scaled<Format>(acc[r], sum, d, scale, scale * static_cast<float>(q_sums[r]), w, part, half);
  }
}

template <DType T, uint32_t R>
inline void quant_tile(const LinearPanel& a, uint32_t row, F16* acc) {
  using Format = Packed<T>;
  constexpr uint32_t kParts = BlockSize<T>::elements / kBlock;  // of a block: each meets one block of activations
  constexpr uint32_t kPartBytes = (Format::bytes + kParts - 1) / kParts;
  static_assert(kParts * kBlock == BlockSize<T>::elements);
  const uint64_t n_blocks = a.in_features / kBlock;
  const std::byte* w = a.panel;
  for (uint64_t b = row * n_blocks; b < (row + uint64_t{1}) * n_blocks; w += Format::bytes)
    for (uint32_t part = 0; part < kParts; ++part, ++b) {
      ask_ahead<kPartBytes>(w + part * kPartBytes);
      add_group<T, 0, R>(a, b, n_blocks, w, part, acc);
      if constexpr (Format::kHalves == 2) add_group<T, 1, R>(a, b, n_blocks, w, part, acc);
    }
}

template <DType T, uint32_t R>
inline void plain_tile(const LinearPanel& a, uint32_t row, F16* acc) {
  const float* x = a.x + uint64_t{row} * a.in_features;
  for (uint32_t k = 0; k < a.in_features; ++k) {
    const std::byte* of_k = a.panel + uint64_t{k} * 16 * BlockSize<T>::bytes;
    ask_ahead<1>(of_k);
    const F16 w = load_as<T>(of_k);
    for (uint32_t r = 0; r < R; ++r) acc[r] = fma(w, set1(x[uint64_t{r} * a.in_features + k]), acc[r]);
  }
}

template <DType T, uint32_t R>
inline void linear_rows(const LinearPanel& a, uint32_t row) {
  F16 acc[R];
  for (uint32_t r = 0; r < R; ++r) acc[r] = zero();
  if constexpr (BlockSize<T>::elements == 1)
    plain_tile<T, R>(a, row, acc);
  else
    quant_tile<T, R>(a, row, acc);
  put_outputs(a, row, acc);
}

template <DType T, uint32_t R = BlockSize<T>::elements == 1 ? kPlainRows : kRowTile>
inline void linear_tiles(const LinearPanel& a, uint32_t row) {
  for (; row + R <= a.n_rows; row += R) linear_rows<T, R>(a, row);
  if constexpr (R > 1) linear_tiles<T, R / 2>(a, row);
}

void linear(const LinearPanel& a) {
#define FOUNDRY_LINEAR(name, Name, number, elements, bytes, kind, linear, ...) \
  FOUNDRY_HOST_##linear(case DType::name : return linear_tiles<DType::name>(a, 0);)
  switch (static_cast<DType>(a.type)) {
    FOUNDRY_FORMATS(FOUNDRY_LINEAR)
    default:
      return;
  }
#undef FOUNDRY_LINEAR
}

template <DType T>
inline uint64_t panel_bytes_of(uint64_t cols) {
  if constexpr (BlockSize<T>::elements == 1)
    return cols * kLanes * BlockSize<T>::bytes;
  else
    return cols / BlockSize<T>::elements * Packed<T>::bytes;
}

uint64_t panel_bytes(uint32_t type, uint64_t cols) {
#define FOUNDRY_PANEL(name, Name, number, elements, bytes, kind, linear, ...) \
  FOUNDRY_HOST_##linear(case DType::name : return panel_bytes_of<DType::name>(cols);)
  switch (static_cast<DType>(type)) {
    FOUNDRY_FORMATS(FOUNDRY_PANEL)
    default:
      return 0;
  }
#undef FOUNDRY_PANEL
}

template <DType T>
inline void pack_as(const PanelSource& from, std::byte* to) {
  constexpr uint32_t size = BlockSize<T>::bytes;
  if constexpr (BlockSize<T>::elements == 1) {
    for (uint64_t k = 0; k < from.cols; ++k)
      for (uint32_t lane = 0; lane < kLanes; ++lane, to += size) {
        if (lane < from.n_rows)
          __builtin_memcpy(to, from.rows + (lane * from.cols + k) * size, size);
        else
          __builtin_memset(to, 0, size);
      }
  } else {
    const uint64_t n_blocks = from.cols / BlockSize<T>::elements;
    const auto* blocks = reinterpret_cast<const typename Packed<T>::Block*>(from.rows);
    for (uint64_t b = 0; b < n_blocks; ++b, to += Packed<T>::bytes)
      Packed<T>::pack(blocks + b, n_blocks, from.n_rows, to);
  }
}

void pack(const PanelSource& from, std::byte* to) {
#define FOUNDRY_PACK(name, Name, number, elements, bytes, kind, linear, ...) \
  FOUNDRY_HOST_##linear(case DType::name : return pack_as<DType::name>(from, to);)
  switch (static_cast<DType>(from.type)) {
    FOUNDRY_FORMATS(FOUNDRY_PACK)
    default:
      return;
  }
#undef FOUNDRY_PACK
}
