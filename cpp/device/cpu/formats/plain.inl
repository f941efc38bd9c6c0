// f32, f16 and bf16: values that are widened as they are loaded.

template <DType T>
inline F16 load_as(const std::byte* p) {
  if constexpr (T == DType::f32) return load(reinterpret_cast<const float*>(p));
  if constexpr (T == DType::f16) return load_f16(reinterpret_cast<const uint16_t*>(p));
  if constexpr (T == DType::bf16) return load_bf16(reinterpret_cast<const uint16_t*>(p));
}

template <DType T>
inline F16 load_as(const std::byte* p, uint32_t n) {
  if (n == 16) return load_as<T>(p);
  if constexpr (T == DType::f32) return load(reinterpret_cast<const float*>(p), n);
  if constexpr (T == DType::f16) return load_f16(reinterpret_cast<const uint16_t*>(p), n);
  if constexpr (T == DType::bf16) return load_bf16(reinterpret_cast<const uint16_t*>(p), n);
}
