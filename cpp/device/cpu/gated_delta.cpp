#include <algorithm>
#include <cmath>

#include "device/cpu/recurrent.h"
#include "device/cpu/rows.h"

namespace foundry::cpu {
namespace {

const float* values_of(const Weight* weight) { return reinterpret_cast<const float*>(weight->mapped); }

struct Head {
  const GatedDeltaArgs& args;
  const CpuKernels& kernels;
  uint64_t number;  // of V
  double decay, bias;

  float* state(uint64_t at) const {
    const GatedDeltaParams& p = args.p;
    return reinterpret_cast<float*>(at + p.state_at_bytes) + number * p.head_k * p.head_v;
  }

  /// next: the state that this thread reads after it, or null.
  void run(const StateRun& run, const float* next) const {
    const GatedDeltaParams& p = args.p;
    const uint64_t keys = uint64_t{p.k_heads} * p.head_k, values = uint64_t{p.v_heads} * p.head_v;
    DeltaRows rows{};
    rows.head_k = p.head_k, rows.head_v = p.head_v;
    rows.mixed_stride = 2 * keys + values, rows.out_stride = values;
    rows.norm = values_of(args.norm), rows.eps = p.eps, rows.qk_eps = p.qk_eps;
    rows.from = run.from == 0 ? nullptr : state(run.from);
    rows.to = state(run.to);
    rows.next = next;
    for (uint32_t done = 0; done < run.n_rows; done += rows.n_rows) {
      const uint64_t first = uint64_t{run.first_row} + done;
      rows.n_rows = std::min(run.n_rows - done, kDeltaRows);
      rows.q = args.mixed.as<float>() + first * rows.mixed_stride + number % p.k_heads * p.head_k;
      rows.k = rows.q + keys;
      rows.v = args.mixed.as<float>() + first * rows.mixed_stride + 2 * keys + number * p.head_v;
      rows.z = args.z.as<float>() + first * values + number * p.head_v;
      rows.out = args.out.as<float>() + first * values + number * p.head_v;
      for (uint32_t r = 0; r < rows.n_rows; ++r) {
        const uint64_t scalar = (first + r) * p.v_heads + number;
        const double x = args.alpha.as<float>()[scalar] + bias;
        rows.kept[r] = static_cast<float>(std::exp(decay * (x > 30 ? x : std::log1p(std::exp(x)))));
        rows.beta[r] = static_cast<float>(1 / (1 + std::exp(-static_cast<double>(args.beta.as<float>()[scalar]))));
      }
      kernels.gated_delta(rows);
      rows.from = rows.to;
    }
  }
};

}  // namespace

void gated_delta(const GatedDeltaArgs& args, const CpuKernels& kernels, ThreadPool& pool) {
  const GatedDeltaParams& p = args.p;
  const auto head = [&](uint64_t h) {
    return Head{args, kernels, h, values_of(args.decay)[h], values_of(args.bias)[h]};
  };
  // A thread's heads are neighbours, whose states memory gives one behind the other.
  const bool small = uint64_t{p.n_rows} * p.v_heads * p.head_k * p.head_v < kSmall;
  const uint64_t parts = small ? 1 : std::min<uint64_t>(p.v_heads, uint64_t{pool.size()} * 2);
  pool.parallel_for(parts, [&](uint64_t part, uint32_t) {
    const uint64_t end = (part + 1) * p.v_heads / parts;
    for (uint64_t h = part * p.v_heads / parts; h < end; ++h)
      for (uint32_t i = 0; i < args.n_runs; ++i) {
        const bool last = i + 1 == args.n_runs;
        const uint64_t next = last && h + 1 == end ? 0 : args.runs[last ? 0 : i + 1].from;
        head(h).run(args.runs[i], next == 0 ? nullptr : head(last ? h + 1 : h).state(next));
      }
  });
}

}  // namespace foundry::cpu
