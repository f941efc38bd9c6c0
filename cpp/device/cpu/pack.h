// Weights re-laid for kernels.inl: panels of 16 outputs, k ascending inside.
//   quantised: for each block of 32 k: scales [16] f16, (Q4_1: minima [16] f16,) then groups of 64 bytes, each four k of 16 outputs;
//              Q4: 4 groups, low nibbles k 0..15, high nibbles k 16..31; Q8: 8 groups
//   plain:     [k][16] in the weight's own type
// Outputs that fill the last panel up are zero.
#pragma once
#include "formats/weight_view.h"

namespace foundry::cpu {

uint64_t panel_bytes(DType type, uint64_t cols);
uint64_t packed_bytes(const WeightView& view);
/// Panel `index` of the view into `to` (panel_bytes). q8_offset is added to Q8_0 values, which then are unsigned.
void pack_panel(const WeightView& view, uint64_t index, int32_t q8_offset, std::byte* to);

}  // namespace foundry::cpu
