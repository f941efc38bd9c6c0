// Part of kernels.inl and linear_amx.inl: how linear layers read panels and write outputs.

/// How far ahead of what is multiplied the panels' bytes are asked for. The processor's own prefetching begins anew
/// with every page, and does not keep memory busy while few rows are multiplied: one row reads 1.3 to 1.9 times as fast
/// for it (docs/measured.md). Panels follow one another, so that the next one's beginning is asked for too.
constexpr uint64_t kAhead = 4096;
constexpr uint32_t kLine = 64;  // bytes that come at once

/// Asks for what is kAhead bytes behind these. No more than advice: an address past the end does no harm.
template <uint32_t kBytes>
inline void ask_ahead(const std::byte* p) {
  FOUNDRY_UNROLL
  for (uint32_t line = 0; line < kBytes; line += kLine)
    __builtin_prefetch(reinterpret_cast<const void*>(reinterpret_cast<uintptr_t>(p) + kAhead + line));
}

/// A row's sums of whole numbers over what shares a scale: times that of the weights, d, and that of the row's
/// activations; and where there are minima, those times `q_sum`, the activations' sum times their scale. This is what
/// is rounded of a block, in this order. (Inlined by force, for where the compiler would rather not, it leaves other
/// kernels' loads as calls too.)
template <class Format>
[[gnu::always_inline]] inline void add_scaled(F16& acc, I16 sum, F16 d, float scale, float q_sum, const std::byte* w,
                                              uint32_t part, uint32_t half) {
  acc = fma(to_float(sum), mul(d, set1(scale)), acc);
  if constexpr (Format::has_minimum) acc = fma(Format::minimum(w, part, half), set1(q_sum), acc);
}

/// The sums of R rows from `row` on, with bias and residual.
template <uint32_t R>
inline void put_outputs(const LinearPanel& a, uint32_t row, const F16 (&sums)[R]) {
  for (uint32_t r = 0; r < R; ++r) {
    const uint64_t at = (row + r) * a.out_stride;
    F16 y = sums[r];
    if (a.bias != nullptr) y = add(y, load(a.bias, a.n_outputs));
    if (a.residual != nullptr) y = add(y, load(a.residual + at, a.n_outputs));
    store(a.out + at, y, a.n_outputs);
  }
}
