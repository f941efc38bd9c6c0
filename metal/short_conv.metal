// short_conv: as LFM2 has it (arXiv:2511.23404), c * conv(b * x), or conv(x) alone, or silu of it. A row's sum is one,
// in the order of its taps, whether a value comes from a row of the step or from the state before it.
#include "kernel.h"
using namespace metal;
#include "gates.h"
#include "states.h"

constant constexpr uint kThreads = ShortConvLaunch::kThreads, kSeen = kMostTaps - 1;

constant bool has_bias [[function_constant(0)]];

/// What is convolved, of a row.
METAL_FUNC float value_of(device const float* in, ulong row, uint channel, constant ShortConvParams& p) {
  if (p.gated == 0) return in[row * p.channels + channel];
  device const float* of = in + row * 3 * p.channels + channel;
  return of[0] * of[2 * p.channels];
}

/// The run that has a row. Runs are in the order of their rows.
METAL_FUNC uint run_of(device const Run* runs, uint n, uint row) {
  uint low = 0, high = n;
  while (high - low > 1) {
    const uint middle = (low + high) / 2;
    if (runs[middle].first_row <= row)
      low = middle;
    else
      high = middle;
  }
  return low;
}

/// Grid: (rows of the runs, groups of kThreads channels). States are read and not written.
template <uint unused>
kernel void short_conv(device const float* in [[buffer(0)]], device const float* taps [[buffer(1)]],
                       device const float* bias [[buffer(2)]], device float* out [[buffer(3)]],
                       device const Run* runs [[buffer(4)]], constant uint& n_runs [[buffer(5)]],
                       constant ShortConvParams& p [[buffer(6)]], uint3 group [[threadgroup_position_in_grid]],
                       uint index [[thread_index_in_threadgroup]]) {
  const uint channel = group.y * kThreads + index, row = runs[0].first_row + group.x;
  if (channel >= p.channels) return;
  uint run = run_of(runs, n_runs, row);
  for (uint back = p.taps - 1; goes_on(runs, run) && row < runs[run].first_row + back;) --run;
  const uint first = runs[run].first_row;
  device uchar* from = runs[run].from;
  float sum = 0.0f;
  for (uint i = 0; i < p.taps; ++i) {
    const uint back = p.taps - 1 - i;  // rows before this one
    float x = 0.0f;
    if (row >= first + back)
      x = value_of(in, row - back, channel, p);
    else if (from != nullptr)
      x = state_at(from, p.state_at_bytes)[ulong(row + p.taps - 1 - first - back) * p.channels + channel];
    sum = fma(taps[ulong(channel) * p.taps + i], x, sum);
  }
  if (has_bias) sum += bias[channel];
  if (p.gated != 0) sum *= in[(ulong(row) * 3 + 1) * p.channels + channel];
  out[ulong(row) * p.channels + channel] = p.silu != 0 ? gated_by<Silu>(sum) : sum;
}

/// Grid: (groups of kThreads channels, runs). What each run ends with, once all rows have been convolved: a state may
/// take the place of the one before it.
template <uint unused>
kernel void short_conv_state(device const float* in [[buffer(0)]], device const Run* runs [[buffer(1)]],
                             constant uint& n_runs [[buffer(2)]], constant ShortConvParams& p [[buffer(3)]],
                             uint3 group [[threadgroup_position_in_grid]], uint index [[thread_index_in_threadgroup]]) {
  const uint channel = group.x * kThreads + index, first = group.y;
  if (channel >= p.channels || goes_on(runs, first)) return;
  const uint none = kMostTaps - p.taps;  // places of `seen` that are nobody's
  float seen[kSeen];                     // the newest last
  UNROLL
  for (uint i = 0; i < kSeen; ++i) {
    seen[i] = 0.0f;
    if (runs[first].from == nullptr || i < none) continue;
    seen[i] = state_at(runs[first].from, p.state_at_bytes)[ulong(i - none) * p.channels + channel];
  }
  for (uint run = first; run < n_runs && (run == first || goes_on(runs, run)); ++run) {
    const uint n = runs[run].n_rows;
    for (uint r = n < p.taps ? 0 : n - p.taps + 1; r < n; ++r) {
      const float x = value_of(in, ulong(runs[run].first_row) + r, channel, p);
      UNROLL
      for (uint i = 0; i < kSeen; ++i) seen[i] = i + 1 < kSeen ? seen[i + 1] : x;
    }
    device float* to = state_at(runs[run].to, p.state_at_bytes) + channel;
    UNROLL
    for (uint i = 0; i < kSeen; ++i) {
      if (i >= none) to[ulong(i - none) * p.channels] = seen[i];
    }
  }
}

instantiate_kernel("short_conv", short_conv, 0);
instantiate_kernel("short_conv_state", short_conv_state, 0);
