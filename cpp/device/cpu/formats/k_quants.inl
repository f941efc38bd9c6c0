// The formats of 256 values with whole scales for groups of 32 or 16. Packed: scales [16] f16, minima [16] f16 where
// there are any; then for each part of 32 k the groups' scales, [16] i8 each, and minima likewise, and the planes.
//
//   Q6_K  x = scale * s * (q - 32)               groups of 16
//   Q5_K  x = scale * s * q - minimum * m        groups of 32
//   Q4_K  the same
//   Q3_K  x = scale * s * (q - 4)                groups of 16
//   Q2_K  x = scale * s * q - minimum * m        groups of 16; s and m in the nibbles of one byte

/// Without minima, in groups of 16.
template <class B, uint32_t kBits, int32_t kOff>
struct InHalves : InPlanes<B, 256, kBits, 32, 32> {
  using Base = InPlanes<B, 256, kBits, 32, 32>;
  static constexpr uint32_t kHalves = 2;

  static void pack(const B* blocks, uint64_t stride, uint32_t n, std::byte* to) {
    Base::pack_codes(blocks, stride, n, to, [](const Codes& codes, const B& block, uint32_t lane, std::byte* at) {
      put_half(at, lane, block.scale);
      for (uint32_t group = 0; group < 16; ++group)
        at[32 + group / 2 * Base::kPartBytes + group % 2 * 16 + lane] = static_cast<std::byte>(codes.scales[group]);
    });
  }
  static F16 scale(const std::byte* w, uint32_t part, uint32_t half) {
    return mul(load_halves(w), load_i8(Base::scales_of(w, part) + 16 * half, 16));
  }
  static constexpr int32_t kOffset = kOff;
};

template <>
struct Packed<DType::q6_k> : InHalves<BlockQ6_K, 6, 32> {};
template <>
struct Packed<DType::q3_k> : InHalves<BlockQ3_K, 3, 4> {};

/// With minima, in groups of 32. The f16 minima are packed with the sign that adds them.
template <class B, uint32_t kBits>
struct WithMinima : InPlanes<B, 256, kBits, 64, 32> {
  using Base = InPlanes<B, 256, kBits, 64, 32>;
  static constexpr bool has_minimum = true;

  static void pack(const B* blocks, uint64_t stride, uint32_t n, std::byte* to) {
    Base::pack_codes(blocks, stride, n, to, [](const Codes& codes, const B& block, uint32_t lane, std::byte* at) {
      put_half(at, lane, block.scale);
      put_half(at + 32, lane, block.minimum ^ 0x8000);
      for (uint32_t part = 0; part < 8; ++part) {
        at[64 + part * Base::kPartBytes + lane] = static_cast<std::byte>(codes.scales[part]);
        at[64 + part * Base::kPartBytes + 16 + lane] = static_cast<std::byte>(codes.minima[part]);
      }
    });
  }
  static F16 scale(const std::byte* w, uint32_t part, uint32_t) {
    return mul(load_halves(w), load_i8(Base::scales_of(w, part), 16));
  }
  static F16 minimum(const std::byte* w, uint32_t part, uint32_t) {
    return mul(load_halves(w + 32), load_i8(Base::scales_of(w, part) + 16, 16));
  }
  static constexpr int32_t kOffset = 0;
};

template <>
struct Packed<DType::q5_k> : WithMinima<BlockQ5_K, 5> {};
template <>
struct Packed<DType::q4_k> : WithMinima<BlockQ4_K, 4> {};

template <>
struct Packed<DType::q2_k> : InPlanes<BlockQ2_K, 256, 2, 64, 32> {
  static constexpr uint32_t kHalves = 2;
  static constexpr bool has_minimum = true;

  static void pack(const Block* blocks, uint64_t stride, uint32_t n, std::byte* to) {
    pack_codes(blocks, stride, n, to, [](const Codes&, const Block& block, uint32_t lane, std::byte* at) {
      put_half(at, lane, block.scale);
      put_half(at + 32, lane, block.minimum ^ 0x8000);
      for (uint32_t group = 0; group < 16; ++group)
        at[64 + group / 2 * kPartBytes + group % 2 * 16 + lane] = static_cast<std::byte>(block.scales[group]);
    });
  }
  static F16 scale(const std::byte* w, uint32_t part, uint32_t half) {
    return mul(load_halves(w), nibbles(w, part, half, false));
  }
  static F16 minimum(const std::byte* w, uint32_t part, uint32_t half) {
    return mul(load_halves(w + 32), nibbles(w, part, half, true));
  }
  static constexpr int32_t kOffset = 0;

 private:
  static F16 nibbles(const std::byte* w, uint32_t part, uint32_t half, bool high) {
    F16 scales, minima;
    load_nibbles(scales_of(w, part) + 16 * half, 16, scales, minima);
    return add(high ? minima : scales, set1(8.0f));
  }
};
