// The runs of a step through recurrent layers as GPU kernels see them: StateRun with its addresses as pointers.
#pragma once

/// The same bytes as StateRun.
struct Run {
  device uchar* from;  // null: a state of zeros
  device uchar* to;
  u32 first_row;
  u32 n_rows;
};
static_assert(sizeof(Run) == 24, "Run is StateRun");

/// Whether a run begins with the state that the one before it ends with, and so with the row behind that one's last:
/// then both are one thread's, in their order. Runs that do not may be taken at the same time.
METAL_FUNC bool goes_on(device const Run* runs, uint i) {
  return i != 0 && runs[i].from != nullptr && runs[i].from == runs[i - 1].to;
}

/// A layer's part of a state.
METAL_FUNC device float* state_at(device uchar* state, ulong at_bytes) { return (device float*)(state + at_bytes); }
