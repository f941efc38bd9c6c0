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
  static constexpr int32_t kOffset = 8;
  static void accumulate(Dots& sum, Bytes k, int32_t four) { add_codes(sum, k, four); }
};

template <>
struct Kept<DType::q4_0> {
  static constexpr bool kDots = kDotsOfCodes;
  static constexpr uint32_t kFours = 2, kMost = 15;
  static constexpr int32_t kOffset = 8;

  static void fours(const std::byte* bytes, uint32_t n, Bytes (&k)[kFours]) {
    const Bytes nibbles = load_bytes(bytes, n);
    k[0] = both(nibbles, each_byte(15));
    k[1] = both(shifted<-4>(nibbles), each_byte(15));
  }
  static void accumulate(Dots& sum, Bytes k, int32_t four) { add_codes(sum, k, four); }
  template <int i>
  static void widen(const std::byte* bytes, uint32_t n, F16 (&k)[kFours]) {
    Bytes codes[kFours];
    fours(bytes, n, codes);
    for (uint32_t f = 0; f < kFours; ++f) k[f] = sub(widen_byte<i>(codes[f]), set1(kOffset));
  }
  static F16 values(const std::byte* bytes, uint32_t d) {
    F16 low, high;
    load_nibbles(bytes, 16, low, high);
    return d == 0 ? low : high;
  }
};
