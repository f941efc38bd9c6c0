// The ops, apart from the Device that calls them. Each is what its Args in device.h say, written as plainly as it goes.
#pragma once
#include <cmath>

#include "device/device.h"

namespace foundry::reference {

/// cap * tanh(x / cap); NaN for what is not finite, so that it is not hidden.
inline double soft_cap(double x, double cap) { return cap * std::tanh(x / cap) + (x - x); }

void embed(const EmbedArgs& args);
void rms_norm(const RmsNormArgs& args);
void layer_norm(const LayerNormArgs& args);
void linear(const LinearArgs& args);
void linear_routed(const LinearRoutedArgs& args);
void sum_routed(const SumRoutedArgs& args);
void short_conv(const ShortConvArgs& args);
void gated_delta(const GatedDeltaArgs& args);
void sigmoid_gate(const SigmoidGateArgs& args);
void rope(const RopeArgs& args);
void kv_append(const KvAppendArgs& args);
void attention(const AttentionArgs& args);
void swiglu(const GatedArgs& args);
void geglu(const GatedArgs& args);
void swiglu_clamped(const ClampedGateArgs& args);
void gelu(const GeluArgs& args);
void add(const AddArgs& args);
void scale(const ScaleArgs& args);
void resize_heads(const ResizeHeadsArgs& args);
void select_rows(const SelectRowsArgs& args);
void sample(const SampleArgs& args);

}  // namespace foundry::reference
