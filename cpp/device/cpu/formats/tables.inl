// The formats whose codes stand for values of a table. Packed: scales [16] f16 (of MXFP4 bf16); then for each part of
// 32 k, in IQ4_XS its scales [16] i8, and the planes.
//
//   IQ4_NL  x = scale * value        IQ4_XS  x = scale * s * value        MXFP4  x = scale * value

/// Values that fill a byte: read as Q8_0's are.
struct Iq4Values {
  static constexpr int32_t kOffset = kQ8Offset;
  static Bytes values(Bytes codes) {
    static constexpr int8_t kSigned[16] = {FOUNDRY_IQ4_VALUES};
    static constexpr auto kTable = with_offset(kSigned, kOffset);
    return lookup(kTable.bytes, codes);
  }
};

template <>
struct Packed<DType::iq4_nl> : InPlanes<BlockIQ4_NL, 32, 4, 32, 0> {
  static constexpr uint32_t kMost = 0;

  static void pack(const Block* blocks, uint64_t stride, uint32_t n, std::byte* to) {
    pack_codes(blocks, stride, n, to,
               [](const Codes&, const Block& block, uint32_t lane, std::byte* at) { put_half(at, lane, block.scale); });
  }
  template <uint32_t i>
  static void pair(const std::byte* w, uint32_t part, Bytes (&k)[2]) {
    InPlanes::pair<i>(w, part, k);
    for (Bytes& one : k) one = Iq4Values::values(one);
  }
  static void accumulate(Dots& sum, Bytes k, int32_t four) { add_q8(sum, k, four); }
  static F16 scale(const std::byte* w, uint32_t, uint32_t) { return load_halves(w); }
  static constexpr int32_t kOffset = Iq4Values::kOffset;
};

template <>
struct Packed<DType::iq4_xs> : InPlanes<BlockIQ4_XS, 256, 4, 32, 16> {
  static constexpr uint32_t kMost = 0;

  static void pack(const Block* blocks, uint64_t stride, uint32_t n, std::byte* to) {
    pack_codes(blocks, stride, n, to, [](const Codes& codes, const Block& block, uint32_t lane, std::byte* at) {
      put_half(at, lane, block.scale);
      for (uint32_t part = 0; part < 8; ++part)
        at[32 + part * kPartBytes + lane] = static_cast<std::byte>(codes.scales[part]);
    });
  }
  template <uint32_t i>
  static void pair(const std::byte* w, uint32_t part, Bytes (&k)[2]) {
    InPlanes::pair<i>(w, part, k);
    for (Bytes& one : k) one = Iq4Values::values(one);
  }
  static void accumulate(Dots& sum, Bytes k, int32_t four) { add_q8(sum, k, four); }
  static F16 scale(const std::byte* w, uint32_t part, uint32_t) {
    return mul(load_halves(w), load_i8(scales_of(w, part), 16));
  }
  static constexpr int32_t kOffset = Iq4Values::kOffset;
};

template <>
struct Packed<DType::mxfp4> : InPlanes<BlockMXFP4, 32, 4, 32, 0> {
  static constexpr int32_t kOffset = 12;
  static constexpr uint32_t kMost = 24;

  static void pack(const Block* blocks, uint64_t stride, uint32_t n, std::byte* to) {
    pack_codes(blocks, stride, n, to, [](const Codes&, const Block& block, uint32_t lane, std::byte* at) {
      put_half(at, lane, mxfp4_scale(block.exponent));
    });
  }
  template <uint32_t i>
  static void pair(const std::byte* w, uint32_t part, Bytes (&k)[2]) {
    static constexpr int8_t kSigned[16] = {FOUNDRY_MXFP4_VALUES};
    static constexpr auto kTable = with_offset(kSigned, kOffset);
    InPlanes::pair<i>(w, part, k);
    for (Bytes& one : k) one = lookup(kTable.bytes, one);
  }
  static F16 scale(const std::byte* w, uint32_t, uint32_t) { return load_bf16(reinterpret_cast<const uint16_t*>(w)); }
};
