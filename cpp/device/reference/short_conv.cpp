// short_conv: as LFM2 has it (arXiv:2511.23404), c * conv(b * x), or conv(x) alone, or silu of it.
#include <cmath>
#include <vector>

#include "device/reference/ops.h"

namespace foundry::reference {

void short_conv(const ShortConvArgs& args) {
  const ShortConvParams& p = args.p;
  const auto* taps = reinterpret_cast<const float*>(args.taps->mapped);
  const auto* bias = args.bias == nullptr ? nullptr : reinterpret_cast<const float*>(args.bias->mapped);
  const u64 width = p.gated == 1 ? u64{3} * p.channels : p.channels;
  for (u32 i = 0; i < args.n_runs; ++i) {
    const StateRun& run = args.runs[i];
    const auto* from = run.from == 0 ? nullptr : reinterpret_cast<const float*>(run.from + p.state_at_bytes);
    auto* to = reinterpret_cast<float*>(run.to + p.state_at_bytes);
    for (u32 c = 0; c < p.channels; ++c) {
      std::vector<float> seen(p.taps - 1, 0.0f);  // the values before the first row, and then those of the rows
      for (u32 t = 0; from != nullptr && t + 1 < p.taps; ++t) seen[t] = from[u64{t} * p.channels + c];
      for (u32 r = 0; r < run.n_rows; ++r) {
        const u64 row = u64{run.first_row} + r;
        const float* in = args.in.as<float>() + row * width + c;
        seen.push_back(p.gated == 1 ? in[0] * in[u64{2} * p.channels] : in[0]);
        double sum = bias == nullptr ? 0 : bias[c];
        for (u32 t = 0; t < p.taps; ++t) sum += static_cast<double>(taps[u64{c} * p.taps + t]) * seen[r + t];
        if (p.gated == 1) sum *= in[p.channels];
        if (p.silu == 1) sum /= 1 + std::exp(-sum);
        args.out.as<float>()[row * p.channels + c] = static_cast<float>(sum);
      }
      for (u32 t = 0; t + 1 < p.taps; ++t) to[u64{t} * p.channels + c] = seen[run.n_rows + t];
    }
  }
}

}  // namespace foundry::reference
