// Part of kernels.inl: linear layers, sixteen outputs at a time.

/// A packed block of a panel: scales [16] f16, (Q4_1: minima [16] f16,) then 64-byte groups of four k for each output.
template <uint32_t T>
constexpr uint32_t packed_bytes() {
  return T == kQ4_0 ? 32 + 256 : T == kQ4_1 ? 64 + 256 : 32 + 512;
}

template <uint32_t T, uint32_t R>
inline void quant_tile(const LinearPanel& a, uint32_t row, F16* acc) {
  const uint32_t n_blocks = a.in_features / kBlock;
  const std::byte* w = a.panel;
  for (uint32_t b = 0; b < n_blocks; ++b, w += packed_bytes<T>()) {
    const F16 d = load_f16(reinterpret_cast<const uint16_t*>(w));
    const std::byte* groups = w + (T == kQ4_1 ? 64 : 32);
    Bytes k[8];
    for (uint32_t j = 0; j < (T == kQ8_0 ? 8 : 4); ++j) {
      k[j] = load_bytes(groups + 64 * j);
      if constexpr (T != kQ8_0) {
        k[4 + j] = high_nibbles(k[j]);
        k[j] = low_nibbles(k[j]);
      }
    }
    for (uint32_t r = 0; r < R; ++r) {
      const uint64_t at = uint64_t{row + r} * n_blocks + b;
      int32_t q[16];  // four k each: eight of the coarse part, eight of the fine
      __builtin_memcpy(q, a.quant.q + at * kQuantBytes, sizeof q);
      const int32_t q_sum = a.quant.sums[at];
      const float scale = a.quant.scales[at];
      I16 coarse = izero();
      I16 fine = T == kQ4_0 ? iset1(-8 * q_sum) : T == kQ8_0 ? iset1(-kQ8Offset * q_sum) : izero();
      for (uint32_t j = 0; j < 8; ++j) {
        coarse = T == kQ8_0 ? dot_q8(coarse, k[j], q[j]) : dot_nibbles(coarse, k[j], q[j]);
        fine = T == kQ8_0 ? dot_q8(fine, k[j], q[8 + j]) : dot_nibbles(fine, k[j], q[8 + j]);
      }
      acc[r] = fma(to_float(iadd(shift_left7(coarse), fine)), mul(d, set1(scale)), acc[r]);
      if constexpr (T == kQ4_1)
        acc[r] =
            fma(load_f16(reinterpret_cast<const uint16_t*>(w + 32)), set1(scale * static_cast<float>(q_sum)), acc[r]);
    }
  }
}

template <uint32_t T, uint32_t R>
inline void plain_tile(const LinearPanel& a, uint32_t row, F16* acc) {
  const float* x = a.x + uint64_t{row} * a.in_features;
  for (uint32_t k = 0; k < a.in_features; ++k) {
    const F16 w = load_as<T>(a.panel + uint64_t{k} * 16 * element_bytes<T>());
    for (uint32_t r = 0; r < R; ++r) acc[r] = fma(w, set1(x[uint64_t{r} * a.in_features + k]), acc[r]);
  }
}

template <uint32_t T, uint32_t R>
inline void linear_rows(const LinearPanel& a, uint32_t row) {
  F16 acc[R];
  for (uint32_t r = 0; r < R; ++r) acc[r] = zero();
  if constexpr (T == kQ4_0 || T == kQ4_1 || T == kQ8_0)
    quant_tile<T, R>(a, row, acc);
  else
    plain_tile<T, R>(a, row, acc);
  for (uint32_t r = 0; r < R; ++r) {
    const uint64_t at = (row + r) * a.out_stride;
    F16 y = acc[r];
    if (a.bias != nullptr) y = add(y, load(a.bias, a.n_outputs));
    if (a.residual != nullptr) y = add(y, load(a.residual + at, a.n_outputs));
    store(a.out + at, y, a.n_outputs);
  }
}

template <uint32_t T, uint32_t R = kRowTile>
inline void linear_tiles(const LinearPanel& a, uint32_t row) {
  for (; row + R <= a.n_rows; row += R) linear_rows<T, R>(a, row);
  if constexpr (R > 1) linear_tiles<T, R / 2>(a, row);
}

void linear(const LinearPanel& a) {
  switch (a.type) {
    case kQ4_0:
      return linear_tiles<kQ4_0>(a, 0);
    case kQ4_1:
      return linear_tiles<kQ4_1>(a, 0);
    case kQ8_0:
      return linear_tiles<kQ8_0>(a, 0);
    case kF16:
      return linear_tiles<kF16>(a, 0);
    case kBf16:
      return linear_tiles<kBf16>(a, 0);
    default:
      return linear_tiles<kF32>(a, 0);
  }
}
