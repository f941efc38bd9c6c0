// Q4_1: x = scale * q + minimum. Packed: scales [16] f16, minima [16] f16, then 4 groups of nibbles as in Q4_0.

template <>
struct Packed<DType::q4_1> {
  using Block = BlockQ4_1;
  static constexpr uint32_t bytes = 64 + 256;
  static constexpr uint32_t kApart = 4, kHalves = 1, kMost = 15;
  static constexpr bool has_minimum = true;

  static void pack(const Block* blocks, uint64_t stride, uint32_t n, std::byte* to) {
    pack_halves(blocks, stride, n, &Block::scale, to);
    pack_halves(blocks, stride, n, &Block::minimum, to + 32);
    pack_nibbles(blocks, stride, n, to + 64);
  }
  template <uint32_t i>
  static void pair(const std::byte* w, uint32_t, Bytes (&k)[2]) {
    nibble_pair<i>(w + 64, k);
  }
  static F16 scale(const std::byte* w, uint32_t, uint32_t) { return load_halves(w); }
  static F16 minimum(const std::byte* w, uint32_t, uint32_t) { return load_halves(w + 32); }
  static constexpr int32_t kOffset = 0;
  static void accumulate(Dots& sum, Bytes k, int32_t four) { add_codes(sum, k, four); }
};
