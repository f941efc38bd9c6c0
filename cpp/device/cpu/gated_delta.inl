// The gated delta rule: lanes are values of v, so a state is read in its order, and sums go over k, ascending. A row
// reads the state once, for S^T k and S^T q, and once more to write the next: o = kept S^T q + (k q) delta. What a lane
// computes does not depend on the lanes beside it, nor on how many rows there are.

/// Sums that registers hold, a pair for each sixteen columns: of several rows, whose block of the state stays near, and
/// of one, which reads whole rows of the state where it can.
constexpr uint32_t kDeltaWords = kSums >= 16 ? 4 : kSums >= 6 ? 2 : 1;
constexpr uint32_t kDeltaWordsOfOne = kSums >= 16 ? 8 : kDeltaWords;

struct DeltaKeys {
  float q[kDeltaRows][kMostDeltaDim], k[kDeltaRows][kMostDeltaDim];
  float both[kDeltaRows];  // k q
};

/// x divided by its length, times `scale`.
inline void direct(const float* x, uint32_t n, float eps, float scale, float* y) {
  F16 squares = zero();
  for (uint32_t i = 0; i < n; i += 16) {
    const F16 a = load(x + i, n - i < 16 ? n - i : 16);
    squares = fma(a, a, squares);
  }
  const F16 times = set1(scale / __builtin_sqrtf(sum(squares) + eps));
  for (uint32_t i = 0; i < n; i += 16) {
    const uint32_t count = n - i < 16 ? n - i : 16;
    store(y + i, mul(load(x + i, count), times), count);
  }
}

/// All rows through `words` times sixteen columns from `first` on; of the last word, `count` lanes. One that is `last`
/// leaves the state past the caches, and has them fetch what is next: a state is far larger than they are, and with a
/// row a token it comes and goes through memory.
template <uint32_t words, bool whole, bool last>
inline void delta_columns(const DeltaRows& d, const DeltaKeys& keys, uint32_t first, uint32_t count) {
  const auto read = [&](const float* p) {
    if constexpr (whole) return load(p);
    return load(p, count);
  };
  const auto write = [&](float* p, F16 a) {
    if constexpr (whole) return store(p, a);
    store(p, a, count);
  };
  const auto write_state = [&](float* p, F16 a) {
    if constexpr (last) return stream(p, a);
    write(p, a);
  };
  const uint64_t stride = d.head_v;
  const uint32_t head_k = d.head_k;
  for (uint32_t r = 0; r < d.n_rows; ++r) {
    const float *before = r == 0 ? d.from : d.to, *k = keys.k[r], *q = keys.q[r];
    F16 known[words], seen[words];
    FOUNDRY_UNROLL
    for (uint32_t w = 0; w < words; ++w) known[w] = seen[w] = zero();
    const float* from = before == nullptr ? nullptr : before + first;
    for (uint32_t i = 0; before != nullptr && i < head_k; ++i, from += stride) {
      const F16 ki = set1(k[i]), qi = set1(q[i]);
      F16 s[words];
      FOUNDRY_UNROLL
      for (uint32_t w = 0; w < words; ++w) s[w] = read(from + 16 * w);
      FOUNDRY_UNROLL
      for (uint32_t w = 0; w < words; ++w) known[w] = fma(ki, s[w], known[w]);
      FOUNDRY_UNROLL
      for (uint32_t w = 0; w < words; ++w) seen[w] = fma(qi, s[w], seen[w]);
    }
    const F16 kept = set1(d.kept[r]), beta = set1(d.beta[r]), both = set1(keys.both[r]);
    FOUNDRY_UNROLL
    for (uint32_t w = 0; w < words; ++w) {  // known becomes the difference
      const F16 v = read(d.v + r * d.mixed_stride + first + 16 * w);
      known[w] = mul(beta, sub(v, mul(kept, known[w])));
      write(d.out + r * d.out_stride + first + 16 * w, fma(both, known[w], mul(kept, seen[w])));
    }
    float* to = d.to + first;
    if (before == nullptr) {
      for (uint32_t i = 0; i < head_k; ++i, to += stride) {
        const F16 ki = set1(k[i]);
        FOUNDRY_UNROLL
        for (uint32_t w = 0; w < words; ++w) write_state(to + 16 * w, fma(ki, known[w], zero()));
      }
      continue;
    }
    from = before + first;
    const float* next = d.next == nullptr ? from : d.next + first;
    for (uint32_t i = 0; i < head_k; ++i, from += stride, to += stride, next += stride) {
      const F16 ki = set1(k[i]);
      FOUNDRY_UNROLL
      for (uint32_t w = 0; w < words; ++w) {
        if (last) __builtin_prefetch(next + 16 * w, 0, 2);
        write_state(to + 16 * w, fma(ki, known[w], mul(kept, read(from + 16 * w))));
      }
    }
  }
}

template <uint32_t words, bool last = false>
inline uint32_t delta_blocks(const DeltaRows& d, const DeltaKeys& keys, uint32_t first) {
  for (; first + 16 * words <= d.head_v; first += 16 * words) delta_columns<words, true, last>(d, keys, first, 16);
  return first;
}

void gated_delta(const DeltaRows& d) {
  DeltaKeys keys;
  for (uint32_t r = 0; r < d.n_rows; ++r) {
    direct(d.q + r * d.mixed_stride, d.head_k, d.qk_eps, 1 / __builtin_sqrtf(static_cast<float>(d.head_k)), keys.q[r]);
    direct(d.k + r * d.mixed_stride, d.head_k, d.qk_eps, 1, keys.k[r]);
    F16 products = zero();
    for (uint32_t i = 0; i < d.head_k; i += 16) {
      const uint32_t count = d.head_k - i < 16 ? d.head_k - i : 16;
      products = fma(load(keys.q[r] + i, count), load(keys.k[r] + i, count), products);
    }
    keys.both[r] = sum(products);
  }
  const bool aligned = reinterpret_cast<uintptr_t>(d.to) % kStreamAlign == 0 && d.head_v * sizeof(float) % 64 == 0;
  uint32_t first = 0;
  if (d.n_rows == 1 && d.from != d.to && aligned) {
    first = delta_blocks<kDeltaWordsOfOne, true>(d, keys, 0);
    streamed();
  }
  first = delta_blocks<1>(d, keys, delta_blocks<kDeltaWords>(d, keys, first));
  if (first < d.head_v) delta_columns<1, false, false>(d, keys, first, d.head_v - first);
  for (uint32_t r = 0; r < d.n_rows; ++r) {
    float* out = d.out + r * d.out_stride;
    const float* z = d.z + r * d.out_stride;
    rms_norm(out, d.norm, out, d.head_v, d.eps);
    swiglu(z, out, out, d.head_v);
  }
}
