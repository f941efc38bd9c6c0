// Q8_0: x = scale * q. Packed: scales [16] f16, then 8 groups of q + kQ8Offset.

template <>
struct Packed<DType::q8_0> {
  using Block = BlockQ8_0;
  static constexpr uint32_t bytes = 32 + 512;
  static constexpr uint32_t kApart = 1, kHalves = 1, kMost = 0;
  static constexpr bool has_minimum = false;

  static void pack(const Block* blocks, uint64_t stride, uint32_t n, std::byte* to) {
    pack_halves(blocks, stride, n, &Block::scale, to);
    to += 32;
    __builtin_memset(to, 0, 512);
    for (uint32_t lane = 0; lane < n; ++lane)
      for (uint32_t k = 0; k < 32; ++k)
        to[k / 4 * 64 + lane * 4 + k % 4] = static_cast<std::byte>(blocks[lane * stride].values[k] + kQ8Offset);
  }
  template <uint32_t i>
  static void pair(const std::byte* w, uint32_t, Bytes (&k)[2]) {
    k[0] = load_bytes(w + 32 + 128 * i);
    k[1] = load_bytes(w + 32 + 128 * i + 64);
  }
  static F16 scale(const std::byte* w, uint32_t, uint32_t) { return load_halves(w); }
  static I16 start(int32_t q_sum) { return iset1(-kQ8Offset * q_sum); }
  static void accumulate(Dots& sum, Bytes k, int32_t four) { add_q8(sum, k, four); }
};

template <>
struct Kept<DType::q8_0> {
  /// acc[i] += q_i . k over a block; lanes are the n tokens of a tile. The sum of the block first, then its scale.
  template <uint32_t N>
  static void dot_block(const std::byte* block, uint32_t n, const float* const (&q)[N], uint32_t dim, F16 (&acc)[N]) {
    const std::byte* values = block + n * sizeof(uint16_t);
    F16 part[N];
    for (uint32_t i = 0; i < N; ++i) part[i] = zero();
    for (uint32_t d = 0; d < 32; ++d) {
      const F16 k = load_i8(values + uint64_t{d} * n, n);
      for (uint32_t i = 0; i < N; ++i) part[i] = fma(k, set1(q[i][dim + d]), part[i]);
    }
    const F16 scale = load_f16(reinterpret_cast<const uint16_t*>(block), n);
    for (uint32_t i = 0; i < N; ++i) acc[i] = fma(scale, part[i], acc[i]);
  }
  /// Sixteen values of a block, from value d on.
  static F16 value_lanes(const std::byte* block, uint32_t d) {
    const F16 scale = set1(widen_f16(reinterpret_cast<const uint16_t*>(block)));
    return mul(load_i8(block + sizeof(uint16_t) + d, 16), scale);
  }
};
