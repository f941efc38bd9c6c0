// IQ2 and IQ3, whose codes stand for eight or four values of a grid: in panels each value is a place in the format's
// list of magnitudes, and its sign above that; 3 bits of a value of IQ2 and 4 of IQ3, where the file has 2 to 3.4.
// Packed: scales [16] f16; then for each part of 32 k the groups' scales, [16] i8 each, and the planes.
//
//   x = scale * s / 2^kShift * value
//   IQ2_XXS, IQ3_XXS, IQ3_S   groups of 32        IQ2_XS, IQ2_S   groups of 16

template <class B, uint32_t kBits, uint32_t kGroups, uint32_t kShift, int8_t... kMagnitudes>
struct OfGrid : InPlanes<B, 256, kBits, 32, 16 * kGroups> {
  using Base = InPlanes<B, 256, kBits, 32, 16 * kGroups>;
  static constexpr uint32_t kHalves = kGroups, kMost = 0;
  static constexpr int32_t kOffset = kQ8Offset;

  static void pack(const B* blocks, uint64_t stride, uint32_t n, std::byte* to) {
    Base::pack_codes(blocks, stride, n, to, [](const Codes& codes, const B& block, uint32_t lane, std::byte* at) {
      put_half(at, lane, block.scale);
      for (uint32_t group = 0; group < 8 * kGroups; ++group)
        at[32 + group / kGroups * Base::kPartBytes + group % kGroups * 16 + lane] =
            static_cast<std::byte>(codes.scales[group]);
    });
  }
  template <uint32_t i>
  static void pair(const std::byte* w, uint32_t part, Bytes (&k)[2]) {
    static constexpr int8_t kSigned[16] = {kMagnitudes..., static_cast<int8_t>(-kMagnitudes)...};
    static constexpr auto kTable = with_offset(kSigned, kOffset);
    Base::template pair<i>(w, part, k);
    for (Bytes& one : k) one = lookup(kTable.bytes, one);
  }
  static void accumulate(Dots& sum, Bytes k, int32_t four) { add_q8(sum, k, four); }
  static F16 scale(const std::byte* w, uint32_t part, uint32_t half) {
    constexpr float kUnit = 1.0f / static_cast<float>(1u << kShift);
    return mul(mul(load_halves(w), set1(kUnit)), load_i8(Base::scales_of(w, part) + 16 * half, 16));
  }
};

template <>
struct Packed<DType::iq2_xxs> : OfGrid<BlockIQ2_XXS, 3, 1, 3, FOUNDRY_IQ2_MAGNITUDES> {};
template <>
struct Packed<DType::iq2_xs> : OfGrid<BlockIQ2_XS, 3, 2, 3, FOUNDRY_IQ2_MAGNITUDES> {};
template <>
struct Packed<DType::iq2_s> : OfGrid<BlockIQ2_S, 3, 2, 3, FOUNDRY_IQ2_MAGNITUDES> {};
template <>
struct Packed<DType::iq3_xxs> : OfGrid<BlockIQ3_XXS, 4, 1, 2, FOUNDRY_IQ3_XXS_MAGNITUDES> {};
template <>
struct Packed<DType::iq3_s> : OfGrid<BlockIQ3_S, 4, 1, 0, FOUNDRY_IQ3_S_MAGNITUDES> {};
