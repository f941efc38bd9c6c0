// What formats with codes of 2 to 6 bits share: how codes lie in a packed block, and how they are read.

/// A part's codes of kBits bits, of all outputs, in planes of 64 bytes: the four nibbles of each code, or two of its
/// low two bits; then its higher bits, one a plane or two in two. Output `lane` has bytes 4 lane .. 4 lane + 3 of a
/// plane, one for each k of a group; groups share a byte's bits, the lowest first.
template <uint32_t kBits>
struct Planes {
  static_assert(kBits >= 2 && kBits <= 6);
  static constexpr uint32_t bytes = 64 * kBits;
  static constexpr uint32_t kLow = kBits < 4 ? 2 : 4, kHigh = kBits - kLow;
  static constexpr uint32_t kHighAt = 64 * kLow;

  /// Codes are 32. `to` is zero before the first lane.
  static void put(const uint8_t* codes, uint32_t lane, std::byte* to) {
    uint32_t groups[8];
    __builtin_memcpy(groups, codes, sizeof groups);
    put_bits<kLow>(groups, 0, lane, to);
    if constexpr (kHigh != 0) put_bits<kHigh>(groups, kLow, lane, to + kHighAt);
  }

  /// The codes of groups 2i and 2i + 1.
  template <uint32_t i>
  static void pair(const std::byte* w, Bytes (&k)[2]) {
    low<2 * i>(w, k[0]);
    low<2 * i + 1>(w, k[1]);
    if constexpr (kHigh != 0) {
      const Bytes high = load_bytes(w + kHighAt + 64 * (2 * i * kHigh / 8));
      k[0] = either(k[0], high_bits<2 * i>(high));
      k[1] = either(k[1], high_bits<2 * i + 1>(high));
    }
  }

 private:
  template <uint32_t kCount>
  static void put_bits(const uint32_t (&groups)[8], uint32_t from, uint32_t lane, std::byte* to) {
    constexpr uint32_t kShared = 8 / kCount, kMask = 0x01010101u * ((1u << kCount) - 1);  // groups of a plane
    for (uint32_t plane = 0; plane < kCount; ++plane) {
      uint32_t bits = 0;
      for (uint32_t i = 0; i < kShared; ++i) bits |= (groups[plane * kShared + i] >> from & kMask) << (i * kCount);
      __builtin_memcpy(to + plane * 64 + lane * 4, &bits, sizeof bits);
    }
  }
  template <uint32_t group>
  static void low(const std::byte* w, Bytes& k) {
    constexpr int kAt = group * kLow % 8;
    k = both(shifted<-kAt>(load_bytes(w + 64 * (group * kLow / 8))), each_byte((1 << kLow) - 1));
  }
  template <uint32_t group>
  static Bytes high_bits(Bytes high) {
    constexpr int kAt = group * kHigh % 8, kTo = kLow;
    return both(shifted<kTo - kAt>(high), each_byte(((1 << kHigh) - 1) << kTo));
  }
};

/// A format whose packed block is kHead bytes of its own, then for each part kScales bytes of its own and the planes.
template <class B, uint32_t kValues, uint32_t kBits, uint32_t kHead, uint32_t kScales>
struct InPlanes {
  using Block = B;
  static constexpr uint32_t kPartBytes = kScales + Planes<kBits>::bytes;
  static constexpr uint32_t bytes = kHead + kValues / kBlock * kPartBytes;
  static constexpr uint32_t kApart = 1, kHalves = 1, kMost = (1 << kBits) - 1;
  static constexpr bool has_minimum = false;

  static const std::byte* scales_of(const std::byte* w, uint32_t part) { return w + kHead + part * kPartBytes; }
  template <uint32_t i>
  static void pair(const std::byte* w, uint32_t part, Bytes (&k)[2]) {
    Planes<kBits>::template pair<i>(scales_of(w, part) + kScales, k);
  }
  static void accumulate(Dots& sum, Bytes k, int32_t four) { add_codes(sum, k, four); }

  /// All codes; scales(codes, block, lane, to) puts what else there is, `to` a packed block.
  template <class Scales>
  static void pack_codes(const Block* blocks, uint64_t stride, uint32_t n, std::byte* to, Scales scales) {
    __builtin_memset(to, 0, bytes);
    for (uint32_t lane = 0; lane < n; ++lane) {
      Codes codes;
      take_apart(blocks[lane * stride], codes);
      for (uint32_t part = 0; part < kValues / kBlock; ++part)
        Planes<kBits>::put(codes.q + part * kBlock, lane, to + kHead + part * kPartBytes + kScales);
      scales(codes, blocks[lane * stride], lane, to);
    }
  }
};

inline void put_half(std::byte* halves, uint32_t lane, uint16_t value) {
  __builtin_memcpy(halves + lane * sizeof value, &value, sizeof value);
}
