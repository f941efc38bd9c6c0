// Q4_0: x = scale * (q - 8). Packed: scales [16] f16, then 4 groups, k 0 .. 15 in the low nibbles and k 16 .. 31 in the
// high ones.

template <>
struct Packed<DType::q4_0> {
  using Block = BlockQ4_0;
  static constexpr uint32_t bytes = 32 + 256;
  static constexpr uint32_t kApart = 4, kHalves = 1, kMost = 15;
  static constexpr bool has_minimum = false;

  static void pack(const Block* blocks, uint64_t stride, uint32_t n, std::byte* to) {
    pack_halves(blocks, stride, n, &Block::scale, to);
    pack_nibbles(blocks, stride, n, to + 32);
  }
  template <uint32_t i>
  static void pair(const std::byte* w, uint32_t, Bytes (&k)[2]) {
    nibble_pair<i>(w + 32, k);
  }
  static F16 scale(const std::byte* w, uint32_t, uint32_t) { return load_halves(w); }
  static I16 start(int32_t q_sum) { return iset1(-8 * q_sum); }
  static void accumulate(Dots& sum, Bytes k, int32_t four) { add_codes(sum, k, four); }
};

template <>
struct Kept<DType::q4_0> {
  /// acc[i] += q_i . k over a block; lanes are the n tokens of a tile. The sum of the block first, then its scale.
  template <uint32_t N>
  static void dot_block(const std::byte* block, uint32_t n, const float* const (&q)[N], uint32_t dim, F16 (&acc)[N]) {
    const std::byte* values = block + n * sizeof(uint16_t);
    F16 part[N];
    for (uint32_t i = 0; i < N; ++i) part[i] = zero();
    for (uint32_t d = 0; d < 16; ++d) {
      F16 low, high;
      load_nibbles(values + uint64_t{d} * n, n, low, high);
      for (uint32_t i = 0; i < N; ++i) {
        part[i] = fma(low, set1(q[i][dim + d]), part[i]);
        part[i] = fma(high, set1(q[i][dim + 16 + d]), part[i]);
      }
    }
    const F16 scale = load_f16(reinterpret_cast<const uint16_t*>(block), n);
    for (uint32_t i = 0; i < N; ++i) acc[i] = fma(scale, part[i], acc[i]);
  }
  /// Sixteen values of a block, from value d on.
  static F16 value_lanes(const std::byte* block, uint32_t d) {
    const F16 scale = set1(widen_f16(reinterpret_cast<const uint16_t*>(block)));
    F16 low, high;
    load_nibbles(block + sizeof(uint16_t), 16, low, high);
    return mul(d == 0 ? low : high, scale);
  }
};
