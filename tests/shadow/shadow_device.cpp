#include "shadow/shadow_device.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <new>
#include <vector>

#include "base/error.h"
#include "device/cpu/cpu_device.h"
#include "device/host_buffer.h"
#include "shadow/reach.h"

namespace foundry::test {
namespace {

constexpr uint32_t kStepsAhead = 3;
constexpr uint64_t kMostPoison = uint64_t{4} << 20;  // bytes; more would only make the system find pages

class Shadow final : public Device {
 public:
  Shadow(std::unique_ptr<Device> inner, bool ahead) : inner_(std::move(inner)), info_(inner_->info()) {
    info_.name = "shadow";
    info_.steps_ahead = ahead ? kStepsAhead : 0;
  }
  ~Shadow() override { settle(); }

  const DeviceInfo& info() const override { return info_; }

  std::unique_ptr<Buffer> allocate(uint64_t bytes, MemoryKind kind) override {
    if (kind != MemoryKind::device) return make_host_buffer(bytes, kind);
    auto buffer = std::make_unique<OwnBuffer>(*this, bytes);
    const Reach::Open open(reach_);
    if (bytes <= kMostPoison) std::memset(Span{buffer.get(), 0}.as<std::byte>(), 0xff, bytes);
    return buffer;
  }
  bool unified() const override { return false; }
  std::byte* window(const Span&, const Span& room) override {
    if (room.buffer == nullptr || room.buffer->host() == nullptr)
      throw ConsistencyError("a window without a room in shared memory");
    settle();
    return room.host<std::byte>();
  }
  void upload(const Span& to, std::span<const std::byte> from) override {
    reach_.check_outside(from);
    settle();
    const Reach::Open open(reach_);
    if (!from.empty()) std::memcpy(to.as<std::byte>(), from.data(), from.size());
  }
  void download(const Span& from, std::span<std::byte> to) override {
    reach_.check_outside(to);
    settle();
    const Reach::Open open(reach_);
    if (!to.empty()) std::memcpy(to.data(), from.as<std::byte>(), to.size());
  }
  void copy(const Span& from, const Span& to, uint64_t bytes) override {
    settle();
    const Reach::Open open(reach_);
    std::memcpy(to.as<std::byte>(), from.as<std::byte>(), bytes);
  }

  /// Weights are device memory too: the inner device is given a copy there in place of the file's bytes.
  uint64_t prepared_bytes(const WeightView& view, WeightUse use) const override {
    return inner_->prepared_bytes(view, use) + view.bytes;
  }
  std::unique_ptr<Weight> prepare(const WeightView& view, WeightUse use) override {
    const std::lock_guard lock(mutex_);
    std::unique_ptr<Buffer>& copy = weights_.emplace_back(std::make_unique<OwnBuffer>(*this, view.bytes));
    const Reach::Open open(reach_);
    WeightView own = view;
    own.data = Span{copy.get(), 0}.as<std::byte>();
    if (view.made == nullptr)
      std::memcpy(Span{copy.get(), 0}.as<std::byte>(), view.data, view.bytes);
    else
      view.made->rows(0, view.rows, Span{copy.get(), 0}.as<std::byte>());
    own.made = nullptr, own.told = nullptr;
    auto weight = inner_->prepare(own, use);
    weight->private_bytes += view.bytes;
    return weight;
  }
  uint64_t scratch_bytes(const StepShape& shape) const override { return inner_->scratch_bytes(shape); }

  void begin(Span scratch, const StepShape& shape) override {
    encoding_.clear();
    encoding_.emplace_back([this, scratch, shape] { inner_->begin(scratch, shape); });
  }
  void embed(const EmbedArgs& args) override { record(&Device::embed, args); }
  void rms_norm(const RmsNormArgs& args) override { record(&Device::rms_norm, args); }
  void layer_norm(const LayerNormArgs& args) override { record(&Device::layer_norm, args); }
  void linear(const LinearArgs& args) override { record(&Device::linear, args); }
  void route(const RouteArgs& args) override { record(&Device::route, args); }
  void linear_routed(const LinearRoutedArgs& args) override { record(&Device::linear_routed, args); }
  void sum_routed(const SumRoutedArgs& args) override { record(&Device::sum_routed, args); }
  void short_conv(const ShortConvArgs& args) override {
    record(&Device::short_conv, args, args.runs, args.n_runs, &ShortConvArgs::runs);
  }
  void gated_delta(const GatedDeltaArgs& args) override {
    record(&Device::gated_delta, args, args.runs, args.n_runs, &GatedDeltaArgs::runs);
  }
  void sigmoid_gate(const SigmoidGateArgs& args) override { record(&Device::sigmoid_gate, args); }
  void rope(const RopeArgs& args) override { record(&Device::rope, args); }
  void kv_append(const KvAppendArgs& args) override {
    record(&Device::kv_append, args, args.sequences, args.n_sequences, &KvAppendArgs::sequences);
  }
  void attention(const AttentionArgs& args) override {
    record(&Device::attention, args, args.sequences, args.p.n_sequences, &AttentionArgs::sequences);
  }
  void swiglu(const GatedArgs& args) override { record(&Device::swiglu, args); }
  void geglu(const GatedArgs& args) override { record(&Device::geglu, args); }
  void swiglu_clamped(const ClampedGateArgs& args) override { record(&Device::swiglu_clamped, args); }
  void gelu(const GeluArgs& args) override { record(&Device::gelu, args); }
  void add(const AddArgs& args) override { record(&Device::add, args); }
  void scale(const ScaleArgs& args) override { record(&Device::scale, args); }
  void resize_heads(const ResizeHeadsArgs& args) override { record(&Device::resize_heads, args); }
  void select_rows(const SelectRowsArgs& args) override { record(&Device::select_rows, args); }
  void sample(const SampleArgs& args) override {
    record(&Device::sample, args, args.params, args.n_rows, &SampleArgs::params);
  }

  uint64_t submit() override {
    const std::lock_guard lock(mutex_);
    steps_.push_back({submitted_ + 1, std::move(encoding_)});
    encoding_ = {};
    return ++submitted_;
  }
  void wait(uint64_t step) override {
    const std::lock_guard lock(mutex_);
    run_until(step);
    if (error_ != nullptr && step >= failed_from_ && step <= failed_to_) std::rethrow_exception(error_);
  }

 private:
  using Ops = std::vector<std::function<void()>>;
  struct Step {
    uint64_t number;
    Ops ops;
  };
  /// One that goes while steps are under way stays until they have ended.
  class OwnBuffer final : public Buffer {
   public:
    OwnBuffer(Shadow& of, uint64_t bytes) : of_(of), mapping_(of.reach_.map(bytes)), bytes_(bytes) {}
    ~OwnBuffer() override {
      of_.settle();
      of_.reach_.unmap(mapping_);
    }
    std::byte* host() override { return nullptr; }
    uint64_t address() const override { return reinterpret_cast<uint64_t>(mapping_.data); }
    uint64_t bytes() const override { return bytes_; }

   private:
    Shadow& of_;
    Reach::Mapping mapping_;
    uint64_t bytes_;
  };

  template <class Args>
  void record(void (Device::*op)(const Args&), const Args& args) {
    encoding_.emplace_back([this, op, args] { (inner_.get()->*op)(args); });
  }
  /// What an op is told by pointer is read while it is encoded.
  template <class Args, class T>
  void record(void (Device::*op)(const Args&), const Args& args, const T* told, uint32_t n, const T* Args::* where) {
    encoding_.emplace_back([this, op, args, where, own = std::vector<T>(told, told + n)] {
      Args mine = args;
      mine.*where = own.data();
      (inner_.get()->*op)(mine);
    });
  }

  void settle() noexcept {
    const std::lock_guard lock(mutex_);
    run_until(submitted_);
  }
  /// One that fails takes those behind it along.
  void run_until(uint64_t last) noexcept {
    if (steps_.empty() || steps_.front().number > last) return;
    const Reach::Open open(reach_);
    while (!steps_.empty() && steps_.front().number <= last) {
      try {
        for (const auto& op : steps_.front().ops) op();
        steps_.pop_front();
      } catch (const Error&) {
        fail(std::current_exception());
      } catch (const std::bad_alloc&) {
        fail(std::make_exception_ptr(MemoryLimitError("a step ran out of memory", 0, 0)));
      }
    }
  }
  void fail(std::exception_ptr error) {
    error_ = std::move(error), failed_from_ = steps_.front().number, failed_to_ = submitted_;
    steps_.clear();
  }

  Reach reach_;
  std::unique_ptr<Device> inner_;
  DeviceInfo info_;
  Ops encoding_;  // by the one thread that steps
  std::recursive_mutex
      mutex_;  // what follows, and the inner device; a weight that can't be prepared gives its buffer back
  std::deque<Step> steps_;
  uint64_t submitted_ = 0, failed_from_ = 0, failed_to_ = 0;
  std::exception_ptr error_;
  std::vector<std::unique_ptr<Buffer>> weights_;
};

std::unique_ptr<Device> make_ahead(const DeviceOptions& options) {
  return std::make_unique<Shadow>(make_cpu_device("", options.threads), true);
}

}  // namespace

std::unique_ptr<Device> make_shadow_device(const DeviceOptions& options) {
  return std::make_unique<Shadow>(make_cpu_device("", options.threads), false);
}

void register_shadow_devices() {
  register_device("shadow", make_shadow_device);
  register_device("shadow:ahead", make_ahead);
}

}  // namespace foundry::test
