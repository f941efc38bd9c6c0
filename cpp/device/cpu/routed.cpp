#include "device/cpu/routed.h"

#include <algorithm>
#include <cstring>

#include "base/checked.h"
#include "device/cpu/rows.h"
#include "formats/dtype.h"

namespace foundry::cpu {
namespace {

/// Rows of an expert that are multiplied before they are put where they belong: whole tiles of every instruction set.
constexpr uint32_t kRows = 48;

uint64_t lists_bytes(uint64_t n_experts, uint64_t n) { return round_up((2 * n_experts + n) * sizeof(uint32_t), 64); }

/// A call, and its room. A part is one expert's place in a row: row * n_used + i.
class Routed {
 public:
  Routed(const LinearRoutedArgs& args, Experts& experts, const CpuKernels& kernels, std::byte* scratch)
      : args_(args),
        p_(args.p),
        n_(uint64_t{p_.n_rows} * p_.n_used),
        type_(static_cast<uint32_t>(args.weight->type)),
        quantised_(block_elements(args.weight->type) != 1),
        of_expert_((uint64_t{p_.out_features} + kLanes - 1) / kLanes),
        panel_bytes_(kernels.panel_bytes(type_, p_.in_features)),
        experts_(experts),
        kernels_(kernels),
        ends_(reinterpret_cast<uint32_t*>(scratch)),
        active_(ends_ + p_.n_experts),
        order_(active_ + p_.n_experts) {
    std::byte* rows = scratch + lists_bytes(p_.n_experts, n_);
    const uint64_t blocks = n_ * n_blocks();
    x_ = reinterpret_cast<float*>(rows);
    quant_ = {reinterpret_cast<int8_t*>(rows), reinterpret_cast<float*>(rows + blocks * kQuantBytes),
              reinterpret_cast<int32_t*>(rows + blocks * (kQuantBytes + sizeof(float)))};
  }

  void run(ThreadPool& pool) {
    sort_by_expert();
    for_rows(pool, n_, p_.in_features, [&](uint64_t i) { lay(i); });
    for (uint32_t done = 0; done < n_active_;) {
      const uint32_t *experts = active_ + done, n = experts_.pack(active_ + done, n_active_ - done, pool);
      const uint64_t panels = n * of_expert_, step = std::max<uint64_t>(1, panels / (uint64_t{pool.size()} * 8));
      pool.parallel_for((panels + step - 1) / step, [&](uint64_t task, uint32_t) {
        for (uint64_t i = task * step; i < std::min(panels, (task + 1) * step); ++i)
          multiply(experts[i / of_expert_], i % of_expert_);
      });
      done += n;
    }
  }

 private:
  uint64_t n_blocks() const { return p_.in_features / kBlock; }
  uint64_t begin_of(uint32_t expert) const { return expert == 0 ? 0 : ends_[expert - 1]; }

  /// Parts in the order of their experts, ascending among those of one; where each expert's end; experts that have
  /// some.
  void sort_by_expert() {
    const auto* chosen = args_.chosen.as<int32_t>();
    std::fill_n(ends_, p_.n_experts, 0u);
    for (uint64_t part = 0; part < n_; ++part) ++ends_[chosen[part]];
    uint32_t first = 0;
    for (uint32_t e = 0; e < p_.n_experts; ++e) {
      const uint32_t count = ends_[e];
      if (count != 0) active_[n_active_++] = e;
      ends_[e] = first;
      first += count;
    }
    for (uint64_t part = 0; part < n_; ++part) order_[ends_[chosen[part]]++] = static_cast<uint32_t>(part);
  }

  /// The i-th part's input to its place, as the kernel wants it.
  void lay(uint64_t i) {
    const uint64_t part = order_[i], row = p_.in_parts == 1 ? part / p_.n_used : part, at = i * n_blocks();
    const float* x = args_.in.as<float>() + row * p_.in_features;
    if (quantised_)
      kernels_.quantise(x, p_.in_features, quant_.q + at * kQuantBytes, quant_.scales + at, quant_.sums + 2 * at);
    else
      std::memcpy(x_ + i * p_.in_features, x, p_.in_features * sizeof(float));
  }

  /// Sixteen outputs of an expert, of all its parts.
  void multiply(uint32_t expert, uint64_t index) const {
    const uint64_t first_output = index * kLanes, end = ends_[expert];
    const auto* biases = args_.bias == nullptr ? nullptr : reinterpret_cast<const float*>(args_.bias->mapped);
    float tile[kRows * kLanes];
    LinearPanel panel{};
    panel.type = type_;
    panel.in_features = p_.in_features;
    panel.n_outputs = static_cast<uint32_t>(std::min<uint64_t>(kLanes, p_.out_features - first_output));
    panel.panel = experts_.panels(expert) + index * panel_bytes_;
    panel.bias = biases == nullptr ? nullptr : biases + uint64_t{expert} * p_.out_features + first_output;
    panel.out = tile;
    panel.out_stride = kLanes;
    for (uint64_t from = begin_of(expert); from < end; from += panel.n_rows) {
      const uint64_t at = from * n_blocks();
      panel.n_rows = static_cast<uint32_t>(std::min<uint64_t>(kRows, end - from));
      panel.x = x_ + from * p_.in_features;
      panel.quant = {quant_.q + at * kQuantBytes, quant_.scales + at, quant_.sums + 2 * at};
      kernels_.linear(panel);
      for (uint32_t r = 0; r < panel.n_rows; ++r)
        std::memcpy(args_.out.as<float>() + uint64_t{order_[from + r]} * p_.out_features + first_output,
                    tile + r * kLanes, panel.n_outputs * sizeof(float));
    }
  }

  const LinearRoutedArgs& args_;
  const LinearRoutedParams& p_;
  uint64_t n_;  // parts
  uint32_t type_;
  bool quantised_;
  uint64_t of_expert_;  // panels
  uint64_t panel_bytes_;
  Experts& experts_;
  const CpuKernels& kernels_;
  uint32_t n_active_ = 0;
  uint32_t *ends_, *active_, *order_;
  float* x_;         // parts' inputs in their order: so,
  QuantRows quant_;  // or quantised, in the same place
};

}  // namespace

uint64_t routed_scratch_bytes(const StepShape& shape) {
  static_assert(kQuantBytes + sizeof(float) + 2 * sizeof(int32_t) <= kBlock * sizeof(float));
  if (shape.n_used == 0) return 0;
  const uint64_t n = uint64_t{shape.max_rows} * shape.n_used;
  return lists_bytes(shape.n_experts, n) + n * round_up(shape.max_routed_in, kBlock) * sizeof(float);
}

void linear_routed(const LinearRoutedArgs& args, Experts& experts, const CpuKernels& kernels, ThreadPool& pool,
                   std::byte* scratch) {
  Routed(args, experts, kernels, scratch).run(pool);
}

}  // namespace foundry::cpu
