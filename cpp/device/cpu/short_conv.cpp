#include <algorithm>
#include <cstring>

#include "device/cpu/recurrent.h"
#include "device/cpu/rows.h"

namespace foundry::cpu {
namespace {

constexpr uint32_t kChannels =
    64;  // of a block; all are computed in each, so that no channel's arithmetic is a remainder's

struct Block {
  const ShortConvArgs& args;
  const CpuKernels& kernels;
  uint64_t first;  // channel
  uint32_t n;      // 1 .. kChannels
  float taps[kMostTaps][kChannels] = {};
  float seen[kMostTaps][kChannels] = {};  // the last ones, the newest in place taps - 1
  float bias[kChannels] = {};

  void load_weights() {
    const ShortConvParams& p = args.p;
    const auto* from = reinterpret_cast<const float*>(args.taps->mapped) + first * p.taps;
    for (uint32_t c = 0; c < n; ++c)
      for (uint32_t i = 0; i < p.taps; ++i) taps[i][c] = from[c * p.taps + i];
    if (args.bias != nullptr) std::copy_n(reinterpret_cast<const float*>(args.bias->mapped) + first, n, bias);
  }
  float* state(uint64_t at, uint32_t i) const {
    return reinterpret_cast<float*>(at + args.p.state_at_bytes) + uint64_t{i} * args.p.channels + first;
  }
  void load(uint64_t from) {
    std::memset(seen, 0, sizeof seen);
    for (uint32_t i = 0; from != 0 && i + 1 < args.p.taps; ++i) std::copy_n(state(from, i), n, seen[i + 1]);
  }
  void store(uint64_t to) const {
    for (uint32_t i = 0; i + 1 < args.p.taps; ++i) std::copy_n(seen[i + 1], n, state(to, i));
  }
  void row(uint64_t r) {
    const ShortConvParams& p = args.p;
    const float* in = args.in.as<const float>() + r * p.channels * (p.gated == 1 ? 3 : 1) + first;
    std::memmove(seen[0], seen[1], (p.taps - 1) * sizeof seen[0]);
    float* newest = seen[p.taps - 1];
    if (p.gated == 1)
      for (uint32_t c = 0; c < n; ++c) newest[c] = in[c] * in[2 * p.channels + c];
    else
      std::copy_n(in, n, newest);
    float sums[kChannels];
    for (uint32_t c = 0; c < kChannels; ++c) sums[c] = taps[0][c] * seen[0][c];
    for (uint32_t i = 1; i < p.taps; ++i)
      for (uint32_t c = 0; c < kChannels; ++c) sums[c] += taps[i][c] * seen[i][c];
    if (args.bias != nullptr)
      for (uint32_t c = 0; c < kChannels; ++c) sums[c] += bias[c];
    if (p.gated == 1)
      for (uint32_t c = 0; c < n; ++c) sums[c] *= in[p.channels + c];
    if (p.silu == 1) kernels.sigmoid_gate(sums, sums, sums, kChannels);
    std::copy_n(sums, n, args.out.as<float>() + r * p.channels + first);
  }
};

}  // namespace

void short_conv(const ShortConvArgs& args, const CpuKernels& kernels, ThreadPool& pool) {
  const uint64_t channels = args.p.channels, blocks = (channels + kChannels - 1) / kChannels;
  for_rows(pool, blocks, uint64_t{args.p.n_rows} * kChannels, [&](uint64_t b) {
    const uint64_t first = b * kChannels;
    Block block{args, kernels, first, static_cast<uint32_t>(std::min<uint64_t>(kChannels, channels - first))};
    block.load_weights();
    for (uint32_t i = 0; i < args.n_runs; ++i) {
      const StateRun& run = args.runs[i];
      block.load(run.from);
      for (uint32_t r = 0; r < run.n_rows; ++r) block.row(uint64_t{run.first_row} + r);
      block.store(run.to);
    }
  });
}

}  // namespace foundry::cpu
