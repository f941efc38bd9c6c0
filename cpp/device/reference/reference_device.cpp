#include "device/reference/reference_device.h"

#include "device/host_buffer.h"
#include "device/reference/ops.h"
#include "device/route.h"
#include "device/unified.h"

namespace foundry {
namespace {

/// Runs each op as it is encoded; reads weights where the file has them.
class ReferenceDevice final : public Unified<Device> {
 public:
  const DeviceInfo& info() const override { return info_; }
  std::unique_ptr<Buffer> allocate(uint64_t bytes, MemoryKind kind) override { return make_host_buffer(bytes, kind); }
  uint64_t prepared_bytes(const WeightView&, WeightUse) const override { return 0; }
  std::unique_ptr<Weight> prepare(const WeightView& view, WeightUse) override {
    auto weight = std::make_unique<Weight>();
    weight->rows = view.rows;
    weight->cols = view.cols;
    weight->type = view.type;
    weight->mapped = view.data;
    return weight;
  }
  uint64_t scratch_bytes(const StepShape&) const override { return 0; }

  void begin(Span, const StepShape&) override {}
  void embed(const EmbedArgs& args) override { reference::embed(args); }
  void rms_norm(const RmsNormArgs& args) override { reference::rms_norm(args); }
  void layer_norm(const LayerNormArgs& args) override { reference::layer_norm(args); }
  void linear(const LinearArgs& args) override { reference::linear(args); }
  void route(const RouteArgs& args) override { foundry::route(args, 0, args.p.n_rows); }
  void linear_routed(const LinearRoutedArgs& args) override { reference::linear_routed(args); }
  void sum_routed(const SumRoutedArgs& args) override { reference::sum_routed(args); }
  void short_conv(const ShortConvArgs& args) override { reference::short_conv(args); }
  void gated_delta(const GatedDeltaArgs& args) override { reference::gated_delta(args); }
  void sigmoid_gate(const SigmoidGateArgs& args) override { reference::sigmoid_gate(args); }
  void rope(const RopeArgs& args) override { reference::rope(args); }
  void kv_append(const KvAppendArgs& args) override { reference::kv_append(args); }
  void attention(const AttentionArgs& args) override { reference::attention(args); }
  void swiglu(const GatedArgs& args) override { reference::swiglu(args); }
  void geglu(const GatedArgs& args) override { reference::geglu(args); }
  void swiglu_clamped(const ClampedGateArgs& args) override { reference::swiglu_clamped(args); }
  void gelu(const GeluArgs& args) override { reference::gelu(args); }
  void scale(const ScaleArgs& args) override { reference::scale(args); }
  void resize_heads(const ResizeHeadsArgs& args) override { reference::resize_heads(args); }
  void add(const AddArgs& args) override { reference::add(args); }
  void select_rows(const SelectRowsArgs& args) override { reference::select_rows(args); }
  void sample(const SampleArgs& args) override { reference::sample(args); }
  uint64_t submit() override { return 0; }
  void wait(uint64_t) override {}

 private:
  DeviceInfo info_{"reference", "scalar", 16, 1};
};

}  // namespace

std::unique_ptr<Device> make_reference_device() { return std::make_unique<ReferenceDevice>(); }

}  // namespace foundry
