// Part of kernels.inl: linear layers, sixteen outputs at a time, and the panels that they read (formats/formats.inl).

template <DType T, uint32_t R>
inline void quant_tile(const LinearPanel& a, uint32_t row, F16* acc) {
  using Format = Packed<T>;
  constexpr uint32_t kParts = BlockSize<T>::elements / kBlock;  // of a block: each meets one block of activations
  static_assert(kParts * kBlock == BlockSize<T>::elements);
  const uint32_t n_blocks = a.in_features / kBlock;
  const std::byte* w = a.panel;
  for (uint32_t b = 0; b < n_blocks; w += Format::bytes)
    for (uint32_t part = 0; part < kParts; ++part, ++b) {
      const F16 d = Format::scale(w, part);
      Bytes k[8];
      Format::groups(w, part, k);
      for (uint32_t r = 0; r < R; ++r) {
        const uint64_t at = uint64_t{row + r} * n_blocks + b;
        int32_t q[16];  // four k each: eight of the coarse part, eight of the fine
        __builtin_memcpy(q, a.quant.q + at * kQuantBytes, sizeof q);
        const int32_t q_sum = a.quant.sums[at];
        const float scale = a.quant.scales[at];
        I16 coarse = izero(), fine = Format::start(q_sum);
        for (uint32_t j = 0; j < 8; ++j) {
          coarse = Format::dot(coarse, k[j], q[j]);
          fine = Format::dot(fine, k[j], q[8 + j]);
        }
        acc[r] = fma(to_float(iadd(shift_left7(coarse), fine)), mul(d, set1(scale)), acc[r]);
        if constexpr (Format::has_minimum)
          acc[r] = fma(Format::minimum(w, part), set1(scale * static_cast<float>(q_sum)), acc[r]);
      }
    }
}

template <DType T, uint32_t R>
inline void plain_tile(const LinearPanel& a, uint32_t row, F16* acc) {
  const float* x = a.x + uint64_t{row} * a.in_features;
  for (uint32_t k = 0; k < a.in_features; ++k) {
    const F16 w = load_as<T>(a.panel + uint64_t{k} * 16 * BlockSize<T>::bytes);
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
  for (uint32_t r = 0; r < R; ++r) {
    const uint64_t at = (row + r) * a.out_stride;
    F16 y = acc[r];
    if (a.bias != nullptr) y = add(y, load(a.bias, a.n_outputs));
    if (a.residual != nullptr) y = add(y, load(a.residual + at, a.n_outputs));
    store(a.out + at, y, a.n_outputs);
  }
}

template <DType T, uint32_t R = kRowTile>
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
