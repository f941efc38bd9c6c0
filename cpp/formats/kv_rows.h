// A token's K or V of one head as it lies in a page (params.h says where the parts are), in every type: the readable
// meaning that fast kernels are measured against.
//
// Plain types   K: [page_tokens / tile][head_dim][tile]                      V: [page_tokens][head_dim] Quantised
// K: [page_tokens / tile][head_dim / 32]{f16 scale[tile], q}   V: [page_tokens][head_dim / 32] blocks as in GGUF
//               with q of Q8_0: i8 [8][tile][4], four neighbouring dims of a token side by side, as byte dot products
//               take them; of Q4_0: u8 [4][tile][4], dims i and i + 16 of a block in the nibbles of byte i
//
// A block is 32 dims of one token, so blocks never span tokens and an append touches nothing but its own token.
#pragma once
#include <cstddef>
#include <cstdint>

#include "params.h"

namespace foundry {

/// Rounds 32 values to the nearest multiples of one f16 scale, ties to even; the scale is that of the largest |x| /
/// 127. Where a value is not finite, the scale is NaN. Returns the scale's bits.
uint16_t quantise_q8_0(const float* x, int8_t* q);
/// The same with q from 0 to 15, x ~ scale * (q - 8): the largest |x| becomes -8 (GGML's Q4_0).
uint16_t quantise_q4_0(const float* x, uint8_t* q);

/// `part` is where K (or V) of a layer and head begins in the token's page, `token` the token's index in that page, x
/// [head_dim].
void write_k(const KvParams& kv, std::byte* part, uint32_t token, const float* x);
void write_v(const KvParams& kv, std::byte* part, uint32_t token, const float* x);
float read_k(const KvParams& kv, const std::byte* part, uint32_t token, uint32_t dim);
float read_v(const KvParams& kv, const std::byte* part, uint32_t token, uint32_t dim);

}  // namespace foundry
