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
  static constexpr int32_t kOffset = kQ8Offset;
  static void accumulate(Dots& sum, Bytes k, int32_t four) { add_q8(sum, k, four); }
};

template <>
struct Kept<DType::q8_0> {
  static constexpr bool kDots = kDotsOfQ8;
  static constexpr uint32_t kFours = 1, kMost = 0;
  static constexpr int32_t kOffset = kQ8Offset;

  static void fours(const std::byte* bytes, uint32_t n, Bytes (&k)[kFours]) {
    k[0] = with_q8_offset(load_bytes(bytes, n));
  }
  static void accumulate(Dots& sum, Bytes k, int32_t four) { add_q8(sum, k, four); }
  template <int i>
  static void widen(const std::byte* bytes, uint32_t n, F16 (&k)[kFours]) {
    k[0] = widen_byte<i>(load_bytes(bytes, n));
  }
  static F16 values(const std::byte* bytes, uint32_t d) { return load_i8(bytes + d, 16); }
};
