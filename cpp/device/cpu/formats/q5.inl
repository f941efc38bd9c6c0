// Q5_0: x = scale * (q - 16), and Q5_1: x = scale * q + minimum. Packed: scales [16] f16, minima [16] f16, planes.

template <>
struct Packed<DType::q5_0> : InPlanes<BlockQ5_0, 32, 5, 32, 0> {
  static void pack(const Block* blocks, uint64_t stride, uint32_t n, std::byte* to) {
    pack_codes(blocks, stride, n, to,
               [](const Codes&, const Block& block, uint32_t lane, std::byte* at) { put_half(at, lane, block.scale); });
  }
  static F16 scale(const std::byte* w, uint32_t, uint32_t) { return load_halves(w); }
  static constexpr int32_t kOffset = 16;
};

template <>
struct Packed<DType::q5_1> : InPlanes<BlockQ5_1, 32, 5, 64, 0> {
  static constexpr bool has_minimum = true;

  static void pack(const Block* blocks, uint64_t stride, uint32_t n, std::byte* to) {
    pack_codes(blocks, stride, n, to, [](const Codes&, const Block& block, uint32_t lane, std::byte* at) {
      put_half(at, lane, block.scale);
      put_half(at + 32, lane, block.minimum);
    });
  }
  static F16 scale(const std::byte* w, uint32_t, uint32_t) { return load_halves(w); }
  static F16 minimum(const std::byte* w, uint32_t, uint32_t) { return load_halves(w + 32); }
  static constexpr int32_t kOffset = 0;
};
