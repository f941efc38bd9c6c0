// The launches of recurrent layers.
#pragma once
#include "device/gpu/kernel_queue.h"

namespace foundry {

/// Runs are bound as they are, and Metal binds so many bytes.
inline constexpr uint32_t kMostRuns = 4096 / sizeof(StateRun);

/// Some of a call's runs, at most kMostRuns. A launch points to it: it lives until the launch is dispatched.
struct SomeRuns {
  const StateRun* first;
  uint32_t n;
  uint32_t rows() const { return first[n - 1].first_row + first[n - 1].n_rows - first[0].first_row; }
};

/// What rows give, and then what runs end with.
Dispatch short_conv_launch(const ShortConvArgs& args, const SomeRuns& runs);
Dispatch short_conv_state_launch(const ShortConvArgs& args, const SomeRuns& runs);
Dispatch gated_delta_launch(const GatedDeltaArgs& args, const SomeRuns& runs);
/// Of all rows.
Dispatch gated_delta_norm_launch(const GatedDeltaArgs& args);

}  // namespace foundry
