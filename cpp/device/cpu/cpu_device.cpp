#include "device/cpu/cpu_device.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/checked.h"
#include "base/error.h"
#include "base/sample.h"
#include "base/thread_pool.h"
#include "device/cpu/attention.h"
#include "device/cpu/kernels.h"
#include "device/cpu/processor.h"
#include "device/cpu/recurrent.h"
#include "device/cpu/routed.h"
#include "device/cpu/rows.h"
#include "device/host_arena.h"
#include "device/host_buffer.h"
#include "device/route.h"
#include "device/unified.h"
#include "formats/block_formats.h"
#include "formats/kv_rows.h"

namespace foundry {
namespace {

using cpu::CpuKernels;
using cpu::kBlock;
using cpu::kLanes;
using cpu::kQuantBytes;

bool quantised(DType type) { return block_elements(type) != 1; }

std::vector<const CpuKernels*> available() {
  std::vector<const CpuKernels*> tables;
#ifdef FOUNDRY_AMX  // isa.cmake says what is built
  if (cpu::has_amx()) tables.push_back(&cpu::kernels_amx());
#endif
#ifdef FOUNDRY_AVX512
  if (cpu::has_avx512()) tables.push_back(&cpu::kernels_avx512());
#endif
#ifdef FOUNDRY_AVX2
  if (cpu::has_avx2()) tables.push_back(&cpu::kernels_avx2());
#endif
  tables.push_back(&cpu::kernels_baseline());
  return tables;
}

struct PackedWeight final : Weight {
  std::unique_ptr<Buffer> panels;
  std::unique_ptr<cpu::Experts> experts;  // of a routed weight: who has the panels' room
};

class CpuDevice final : public Unified<Device> {
 public:
  CpuDevice(const CpuKernels& kernels, uint32_t threads)
      : kernels_(kernels), pool_(threads), info_{"cpu", kernels.isa, kLanes, threads} {
    info_.makes_rows = true;
  }

  const DeviceInfo& info() const override { return info_; }
  std::unique_ptr<Buffer> allocate(uint64_t bytes, MemoryKind kind) override { return make_host_buffer(bytes, kind); }

  uint64_t prepared_bytes(const WeightView& view, WeightUse use) const override {
    if (use != WeightUse::linear) return 0;
    if (routed(view)) return cpu::Experts::bytes(kernels_, view, info_.threads);
    return panels_of(view.rows) * panel_bytes(view.type, view.cols);
  }

  std::unique_ptr<Weight> prepare(const WeightView& view, WeightUse use) override {
    auto weight = std::make_unique<PackedWeight>();
    weight->rows = view.rows;
    weight->cols = view.cols;
    weight->type = view.type;
    weight->mapped = view.data;
    weight->private_bytes = prepared_bytes(view, use);
    if (weight->private_bytes == 0) return weight;
    weight->panels = arena_.allocate(weight->private_bytes);
    const uint64_t size = panel_bytes(view.type, view.cols), row = row_bytes(view.type, view.cols);
    if (routed(view)) {
      weight->experts = std::make_unique<cpu::Experts>(kernels_, view, Span{weight->panels.get(), 0}.as<std::byte>());
      return weight;
    }
    std::vector<std::byte> rooms(view.made == nullptr ? 0 : info_.threads * kLanes * row);
    pool_.parallel_for(panels_of(view.rows), [&](uint64_t panel, uint32_t thread) {
      const uint64_t first = panel * kLanes, n = std::min<uint64_t>(kLanes, view.rows - first);
      const std::byte* from = view.at(first, n, rooms.data() + thread * kLanes * row);
      kernels_.pack({static_cast<uint32_t>(view.type), static_cast<uint32_t>(n), view.cols, from},
                    Span{weight->panels.get(), panel * size}.as<std::byte>());
    });
    return weight;
  }

  // Scratch: quantised rows | cos and sin of each row | attention's partials | what is routed.
  uint64_t scratch_bytes(const StepShape& shape) const override {
    return routed_at(shape) + cpu::routed_scratch_bytes(shape);
  }

  void begin(Span scratch, const StepShape& shape) override {
    const uint64_t blocks = blocks_of(shape);
    auto* base = scratch.as<std::byte>();
    quant_.q = reinterpret_cast<int8_t*>(base);
    quant_.scales = reinterpret_cast<float*>(base + blocks * kQuantBytes);
    quant_.sums = reinterpret_cast<int32_t*>(base + blocks * (kQuantBytes + sizeof(float)));
    angles_ = reinterpret_cast<float*>(base + rope_at(shape));
    attention_scratch_ = base + rope_at(shape) + rope_bytes(shape);
    routed_scratch_ = base + routed_at(shape);
    angles_of_ = {};
    angles_known_ = false;
  }

  void embed(const EmbedArgs& args) override {
    const uint64_t stride = row_bytes(args.table->type, args.p.width);
    rows(args.p.n_rows, args.p.width, [&](uint64_t r) {
      const auto token = static_cast<uint64_t>(args.tokens.as<int32_t>()[r]);
      float* y = args.out.as<float>() + r * args.p.width;
      dequantise_row(args.table->type, args.table->mapped + token * stride, y, args.p.width);
      for (uint32_t i = 0; i < args.p.width; ++i) y[i] *= args.p.scale;
    });
  }

  void rms_norm(const RmsNormArgs& args) override {
    const auto* weight = reinterpret_cast<const float*>(args.weight->mapped);
    rows(args.p.n_rows, args.p.width, [&](uint64_t r) {
      const uint64_t at = r * args.p.width;
      kernels_.rms_norm(args.in.as<float>() + at, weight, args.out.as<float>() + at, args.p.width, args.p.eps);
    });
  }

  void layer_norm(const LayerNormArgs& args) override {
    const auto* weight = reinterpret_cast<const float*>(args.weight->mapped);
    const auto* bias = args.bias == nullptr ? nullptr : reinterpret_cast<const float*>(args.bias->mapped);
    rows(args.p.n_rows, args.p.width, [&](uint64_t r) {
      const uint64_t at = r * args.p.width;
      kernels_.layer_norm(args.in.as<float>() + at, weight, bias, args.out.as<float>() + at, args.p.width, args.p.eps);
    });
  }

  void linear(const LinearArgs& args) override {
    const LinearParams& first = args.outputs.front().p;
    bool any = false;
    uint64_t panels = 0;
    for (const auto& output : args.outputs) {
      any = any || quantised(output.weight->type);
      panels += panels_of(output.p.out_features);
    }
    if (any) quantise(args.in, first.n_rows, first.in_features);
    // Several panels a task, a few tasks a thread: enough to even out, few enough to cost nothing.
    const uint64_t step = std::max<uint64_t>(1, panels / (uint64_t{info_.threads} * 8));
    pool_.parallel_for((panels + step - 1) / step, [&](uint64_t task, uint32_t) {
      for (uint64_t panel = task * step; panel < std::min(panels, (task + 1) * step); ++panel) run_panel(args, panel);
    });
  }

  void route(const RouteArgs& args) override {
    rows(args.p.n_rows, uint64_t{args.p.n_experts} * args.p.n_used,
         [&](uint64_t r) { foundry::route(args, r, r + 1); });
  }

  void linear_routed(const LinearRoutedArgs& args) override {
    cpu::Experts& experts = *static_cast<const PackedWeight*>(args.weight)->experts;
    cpu::linear_routed(args, experts, kernels_, pool_, routed_scratch_);
  }

  void sum_routed(const SumRoutedArgs& args) override {
    const SumRoutedParams& p = args.p;
    rows(p.n_rows, uint64_t{p.width} * p.n_used, [&](uint64_t r) {
      const float* weights = args.weights.as<float>() + r * p.n_used;
      const float* in = args.in.as<float>() + r * p.n_used * p.width;
      float* out = args.out.as<float>() + r * p.width;
      for (uint64_t i = 0; i < p.width; ++i) out[i] = weights[0] * in[i];
      for (uint64_t part = 1; part < p.n_used; ++part)
        for (uint64_t i = 0; i < p.width; ++i) out[i] += weights[part] * in[part * p.width + i];
    });
  }

  void short_conv(const ShortConvArgs& args) override { cpu::short_conv(args, kernels_, pool_); }

  void gated_delta(const GatedDeltaArgs& args) override { cpu::gated_delta(args, kernels_, pool_); }

  void rope(const RopeArgs& args) override {
    const RopeParams& p = args.p;
    prepare_angles(args);
    const uint64_t half = p.rot_dim / 2;
    rows(p.n_rows, uint64_t{p.n_heads} * p.head_dim, [&](uint64_t r) {
      const float *cosines = angles_ + r * p.rot_dim, *sines = cosines + half;
      for (uint32_t h = 0; h < p.n_heads; ++h) {
        const float* x = args.in.as<float>() + (r * p.n_heads + h) * p.head_dim;
        float* y = args.out.as<float>() + (r * p.n_heads + h) * p.head_dim;
        for (uint64_t i = 0; i < half; ++i) {
          const uint64_t a = p.style == 0 ? 2 * i : i, b = p.style == 0 ? 2 * i + 1 : i + half;
          const float xa = x[a], xb = x[b];
          y[a] = xa * cosines[i] - xb * sines[i];
          y[b] = xa * sines[i] + xb * cosines[i];
        }
        if (y != x)
          for (uint64_t d = p.rot_dim; d < p.head_dim; ++d) y[d] = x[d];
      }
      if (p.temperature_length == 0) return;
      const auto whole = static_cast<uint32_t>(args.positions.as<int32_t>()[r]) / p.temperature_length;
      const auto times = static_cast<float>(1 + static_cast<double>(p.temperature) * std::log1p(whole));
      float* y = args.out.as<float>() + r * p.n_heads * p.head_dim;
      for (uint64_t i = 0; i < uint64_t{p.n_heads} * p.head_dim; ++i) y[i] *= times;
    });
  }

  void kv_append(const KvAppendArgs& args) override {
    const KvParams& kv = args.kv;
    const uint64_t width = uint64_t{kv.n_kv_heads} * kv.head_dim;
    const auto k_type = static_cast<DType>(kv.k_type), v_type = static_cast<DType>(kv.v_type);
    for (uint32_t s = 0; s < args.n_sequences; ++s) {
      const SequenceParams& sequence = args.sequences[s];
      const auto* pages = reinterpret_cast<const uint64_t*>(sequence.pages);
      rows(sequence.n_rows, width, [&](uint64_t r) {
        const uint64_t position = sequence.start + r, token = position % kv.page_tokens;
        auto* layer =
            reinterpret_cast<std::byte*>(pages[position / kv.page_tokens] + args.layer * kv.layer_stride_bytes);
        for (uint32_t h = 0; h < kv.n_kv_heads; ++h) {
          const uint64_t at = (sequence.first_row + r) * width + uint64_t{h} * kv.head_dim;
          std::byte* k = layer + h * kv.head_stride_bytes;
          std::byte* v = k + kv.k_part_bytes;
          if (block_elements(k_type) != 1)
            write_k(kv, k, static_cast<uint32_t>(token), args.k.as<float>() + at);
          else
            kernels_.append(args.k.as<float>() + at, kv.head_dim, kv.k_type,
                            k + (token / kv.tile_tokens * kv.head_dim * kv.tile_tokens + token % kv.tile_tokens) *
                                    block_bytes(k_type),
                            kv.tile_tokens);
          if (block_elements(v_type) != 1)
            write_v(kv, v, static_cast<uint32_t>(token), args.v.as<float>() + at);
          else
            kernels_.append(args.v.as<float>() + at, kv.head_dim, kv.v_type,
                            v + token * kv.head_dim * block_bytes(v_type), 1);
        }
      });
    }
  }

  void attention(const AttentionArgs& args) override {
    if (kernels_.dots_keys(args.kv.k_type)) quantise(args.q, args.p.n_rows, args.p.n_heads * args.kv.head_dim);
    cpu::attention(args, quant_, kernels_, pool_, attention_scratch_);
  }

  void swiglu(const GatedArgs& args) override {
    rows(args.n_rows, args.width, [&](uint64_t r) {
      const uint64_t at = r * args.width;
      kernels_.swiglu(args.gate.as<float>() + at, args.up.as<float>() + at, args.out.as<float>() + at, args.width);
    });
  }

  void geglu(const GatedArgs& args) override {
    rows(args.n_rows, args.width, [&](uint64_t r) {
      const uint64_t at = r * args.width;
      kernels_.geglu(args.gate.as<float>() + at, args.up.as<float>() + at, args.out.as<float>() + at, args.width);
    });
  }

  /// g / (1 + e^(-alpha g)) is silu(alpha g) / alpha, so it is swiglu of other numbers.
  void swiglu_clamped(const ClampedGateArgs& args) override {
    rows(args.n_rows, args.width, [&](uint64_t r) {
      constexpr uint64_t kPart = 256;
      float gates[kPart], ups[kPart];
      for (uint64_t at = r * args.width, end = at + args.width; at < end; at += kPart) {
        const uint64_t n = std::min(kPart, end - at);
        for (uint64_t i = 0; i < n; ++i) {
          const float g = args.gate.as<float>()[at + i], u = args.up.as<float>()[at + i];
          gates[i] = args.alpha * (g > args.limit ? args.limit : g);  // NaN stays
          ups[i] = ((u > args.limit ? args.limit : u < -args.limit ? -args.limit : u) + 1) / args.alpha;
        }
        kernels_.swiglu(gates, ups, args.out.as<float>() + at, n);
      }
    });
  }

  void sigmoid_gate(const SigmoidGateArgs& args) override {
    const SigmoidGateParams& p = args.p;
    rows(uint64_t{p.n_rows} * p.n_heads, p.width, [&](uint64_t head) {
      const float *x = args.in.as<float>() + head * p.width, *gate = args.gate.as<float>() + head * p.of_head;
      float* y = args.out.as<float>() + head * p.width;
      if (p.of_head != 1 || p.width == 1) return kernels_.sigmoid_gate(x, gate + p.of_head - p.width, y, p.width);
      const float one = 1;
      float open;
      kernels_.sigmoid_gate(&one, gate, &open, 1);
      kernels_.scale(x, y, p.width, open, 0);
    });
  }

  void gelu(const GeluArgs& args) override {
    rows(args.n_rows, args.width, [&](uint64_t r) {
      const uint64_t at = r * args.width;
      kernels_.gelu(args.in.as<float>() + at, args.out.as<float>() + at, args.width);
    });
  }

  void scale(const ScaleArgs& args) override {
    constexpr uint64_t kPart = 4096;
    rows((args.p.n + kPart - 1) / kPart, kPart, [&](uint64_t part) {
      const uint64_t at = part * kPart;
      kernels_.scale(args.in.as<float>() + at, args.out.as<float>() + at, std::min(kPart, args.p.n - at), args.p.scale,
                     args.p.cap);
    });
  }

  void resize_heads(const ResizeHeadsArgs& args) override {
    const uint64_t from = args.p.from, to = args.p.to, kept = std::min(from, to);
    rows(args.p.n / to, to, [&](uint64_t head) {
      float* y = args.out.as<float>() + head * to;
      std::memcpy(y, args.in.as<float>() + head * from, kept * sizeof(float));
      std::fill(y + kept, y + to, 0.0f);
    });
  }

  void add(const AddArgs& args) override {
    rows(args.n_rows, args.width, [&](uint64_t r) {
      const uint64_t at = r * args.width;
      kernels_.add(args.a.as<float>() + at, args.b.as<float>() + at, args.out.as<float>() + at, args.width);
    });
  }

  void select_rows(const SelectRowsArgs& args) override {
    for (uint64_t i = 0; i < args.n_selected; ++i)
      std::memcpy(args.out.as<float>() + i * args.width,
                  args.in.as<float>() + static_cast<uint64_t>(args.rows.as<int32_t>()[i]) * args.width,
                  args.width * sizeof(float));
  }

  void sample(const SampleArgs& args) override {
    std::vector<std::pair<float, int32_t>> room;
    for (uint32_t i = 0; i < args.n_rows; ++i) {
      const auto* row = args.logits.as<float>() + uint64_t{i} * args.vocab_size;
      args.out.as<int32_t>()[i] = foundry::sample({row, args.vocab_size}, args.params[i], room);
    }
  }
  uint64_t submit() override { return 0; }
  void wait(uint64_t) override {}

 private:
  uint64_t panel_bytes(DType type, uint64_t cols) const {
    return kernels_.panel_bytes(static_cast<uint32_t>(type), cols);
  }
  static bool routed(const WeightView& view) { return view.matrices > 1 || view.kept != 0; }
  static uint64_t panels_of(uint64_t outputs) { return (outputs + kLanes - 1) / kLanes; }
  uint64_t routed_at(const StepShape& shape) const {
    return round_up(rope_at(shape) + rope_bytes(shape) + cpu::attention_scratch_bytes(info_.threads), 64);
  }
  static uint64_t blocks_of(const StepShape& shape) {
    return uint64_t{shape.max_rows} * ((shape.max_in_features + kBlock - 1) / kBlock);
  }
  static uint64_t rope_at(const StepShape& shape) {
    return round_up(blocks_of(shape) * (kQuantBytes + sizeof(float) + 2 * sizeof(int32_t)), 64);
  }
  static uint64_t rope_bytes(const StepShape& shape) {
    return round_up(uint64_t{shape.max_rows} * shape.head_dim * sizeof(float), 64);
  }

  template <class F>
  void rows(uint64_t n, uint64_t width, F&& function) {
    cpu::for_rows(pool_, n, width, std::forward<F>(function));
  }

  void run_panel(const LinearArgs& args, uint64_t index) {
    const LinearArgs::Output* output = args.outputs.data();
    for (uint64_t n; index >= (n = panels_of(output->p.out_features)); ++output) index -= n;
    const LinearParams& p = output->p;
    const uint64_t at = index * kLanes;
    const auto* residual = args.residual.as<float>();
    cpu::LinearPanel panel{};
    panel.type = static_cast<uint32_t>(output->weight->type);
    panel.n_rows = p.n_rows;
    panel.in_features = p.in_features;
    panel.n_outputs = static_cast<uint32_t>(std::min<uint64_t>(kLanes, p.out_features - at));
    panel.panel = Span{static_cast<const PackedWeight*>(output->weight)->panels.get(),
                       index * panel_bytes(output->weight->type, p.in_features)}
                      .as<const std::byte>();
    panel.x = args.in.as<float>();
    panel.quant = quant_;
    panel.bias = output->bias == nullptr ? nullptr : reinterpret_cast<const float*>(output->bias->mapped) + at;
    panel.residual = residual == nullptr ? nullptr : residual + at;
    panel.out = output->out.as<float>() + at;
    panel.out_stride = p.out_features;
    kernels_.linear(panel);
  }

  /// Into quant_, whose rows are `width` wide until the next call.
  void quantise(Span in, uint32_t n_rows, uint32_t width) {
    rows(n_rows, width, [&](uint64_t r) {
      const uint64_t at = r * (width / kBlock);
      kernels_.quantise(in.as<float>() + r * width, width, quant_.q + at * kQuantBytes, quant_.scales + at,
                        quant_.sums + 2 * at);
    });
  }

  /// cos and sin of every row and pair, once a step where all layers turn alike: [row][cos of each pair | sin of each
  /// pair].
  void prepare_angles(const RopeArgs& args) {
    const RopeParams& p = args.p;
    const AnglesOf wanted{p.n_rows, p.rot_dim, p.base, p.scale, p.magnitude, args.factors};
    if (angles_known_ && wanted == angles_of_) return;
    const auto* factors = args.factors == nullptr ? nullptr : reinterpret_cast<const float*>(args.factors->mapped);
    rows(p.n_rows, uint64_t{p.rot_dim} * 32, [&](uint64_t r) {
      float* to = angles_ + r * p.rot_dim;
      for (uint32_t i = 0; i < p.rot_dim / 2; ++i) {
        const double frequency =
            std::pow(static_cast<double>(p.base), -2.0 * i / p.rot_dim) / (factors == nullptr ? 1.0 : factors[i]);
        const double angle = args.positions.as<int32_t>()[r] * static_cast<double>(p.scale) * frequency;
        to[i] = static_cast<float>(std::cos(angle) * p.magnitude);
        to[i + p.rot_dim / 2] = static_cast<float>(std::sin(angle) * p.magnitude);
      }
    });
    angles_of_ = wanted;
    angles_known_ = true;
  }

  struct AnglesOf {
    uint32_t n_rows = 0, rot_dim = 0;
    float base = 0, scale = 0, magnitude = 0;
    const Weight* factors = nullptr;
    bool operator==(const AnglesOf&) const = default;
  };

  const CpuKernels& kernels_;
  ThreadPool pool_;
  HostArena arena_;  // packed weights
  DeviceInfo info_;
  cpu::QuantRows quant_{};
  float* angles_ = nullptr;
  std::byte* attention_scratch_ = nullptr;
  std::byte* routed_scratch_ = nullptr;
  AnglesOf angles_of_;
  bool angles_known_ = false;
};

}  // namespace

std::vector<std::string> cpu_instruction_sets() {
  std::vector<std::string> names;
  for (const CpuKernels* kernels : available()) names.emplace_back(kernels->isa);
  return names;
}

std::unique_ptr<Device> make_cpu_device(const std::string& isa, uint32_t threads) {
  std::string names;
  for (const CpuKernels* kernels : available()) {
    if (isa.empty() || isa == kernels->isa)
      return std::make_unique<CpuDevice>(*kernels, threads == 0 ? default_threads() : threads);
    names += (names.empty() ? "" : ", ") + std::string(kernels->isa);
  }
  throw ValueError("device \"cpu:" + isa + "\": expected one of " + names);
}

}  // namespace foundry
