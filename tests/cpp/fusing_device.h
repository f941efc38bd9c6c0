// A device whose fusions are the test's to choose: its ops, and its bits, are another's.
#pragma once
#include <memory>
#include <string>
#include <utility>

#include "device/device.h"
#include "graph/graph.h"

namespace foundry::test {

class FusingDevice : public Device {
 public:
  /// It calls itself by the other device's name.
  FusingDevice(std::unique_ptr<Device> inner, const Fusion& fusion) : inner_(std::move(inner)), info_(inner_->info()) {
    info_.fuses_linears = fusion.linears;
    info_.fuses = fusion.norms_and_gates;
  }

  const DeviceInfo& info() const override { return info_; }
  std::unique_ptr<Buffer> allocate(uint64_t bytes, MemoryKind kind) override { return inner_->allocate(bytes, kind); }
  bool unified() const override { return inner_->unified(); }
  std::byte* window(const Span& of, const Span& room) override { return inner_->window(of, room); }
  void upload(const Span& to, std::span<const std::byte> from) override { inner_->upload(to, from); }
  void download(const Span& from, std::span<std::byte> to) override { inner_->download(from, to); }
  void copy(const Span& from, const Span& to, uint64_t bytes) override { inner_->copy(from, to, bytes); }
  uint64_t prepared_bytes(const WeightView& view, WeightUse use) const override {
    return inner_->prepared_bytes(view, use);
  }
  std::unique_ptr<Weight> prepare(const WeightView& view, WeightUse use) override { return inner_->prepare(view, use); }
  uint64_t scratch_bytes(const StepShape& shape) const override { return inner_->scratch_bytes(shape); }
  void begin(Span scratch, const StepShape& shape) override { inner_->begin(scratch, shape); }
  void embed(const EmbedArgs& args) override { inner_->embed(args); }
  void rms_norm(const RmsNormArgs& args) override { inner_->rms_norm(args); }

  /// One call in three, for devices that do not fuse.
  void linear(const LinearArgs& args) override {
    LinearArgs own = args;
    own.norm = {}, own.gate = LinearArgs::Gate::none;
    if (args.norm.weight != nullptr) inner_->rms_norm({args.norm.p, args.norm.weight, args.norm.in, args.in});
    inner_->linear(own);
    if (args.gate == LinearArgs::Gate::none) return;
    const LinearParams& p = args.outputs[0].p;
    const GatedArgs gated{p.n_rows, p.out_features, args.outputs[0].out, args.outputs[1].out, args.gated};
    args.gate == LinearArgs::Gate::swiglu ? inner_->swiglu(gated) : inner_->geglu(gated);
  }

  void layer_norm(const LayerNormArgs& args) override { inner_->layer_norm(args); }
  void route(const RouteArgs& args) override { inner_->route(args); }
  void linear_routed(const LinearRoutedArgs& args) override { inner_->linear_routed(args); }
  void sum_routed(const SumRoutedArgs& args) override { inner_->sum_routed(args); }
  void short_conv(const ShortConvArgs& args) override { inner_->short_conv(args); }
  void gated_delta(const GatedDeltaArgs& args) override { inner_->gated_delta(args); }
  void sigmoid_gate(const SigmoidGateArgs& args) override { inner_->sigmoid_gate(args); }
  void rope(const RopeArgs& args) override { inner_->rope(args); }
  void kv_append(const KvAppendArgs& args) override {
    KvAppendArgs own = args;
    own.q_rope = own.k_rope = nullptr;
    if (args.q_rope != nullptr) inner_->rope(*args.q_rope);
    if (args.k_rope != nullptr) inner_->rope(*args.k_rope);
    inner_->kv_append(own);
  }
  void attention(const AttentionArgs& args) override { inner_->attention(args); }
  void swiglu(const GatedArgs& args) override { inner_->swiglu(args); }
  void geglu(const GatedArgs& args) override { inner_->geglu(args); }
  void swiglu_clamped(const ClampedGateArgs& args) override { inner_->swiglu_clamped(args); }
  void gelu(const GeluArgs& args) override { inner_->gelu(args); }
  void add(const AddArgs& args) override { inner_->add(args); }
  void scale(const ScaleArgs& args) override { inner_->scale(args); }
  void resize_heads(const ResizeHeadsArgs& args) override { inner_->resize_heads(args); }
  void select_rows(const SelectRowsArgs& args) override { inner_->select_rows(args); }
  void sample(const SampleArgs& args) override { inner_->sample(args); }
  uint64_t submit() override { return inner_->submit(); }
  void wait(uint64_t step) override { inner_->wait(step); }

 private:
  std::unique_ptr<Device> inner_;
  DeviceInfo info_;
};

}  // namespace foundry::test
