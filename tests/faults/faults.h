// Every allocation and map of the house, and every call that opens, reads, locks, writes or renames a file, goes
// through these (the linker wraps them); one of them can be told to fail.
#pragma once
#include <cstdint>

namespace foundry::faults {

enum class How : uint32_t {
  fail,      // it fails as the system would fail it
  kill,      // the process ends before it
  kill_mid,  // the process ends in it: half of a write is done
};

/// The nth call from now on; -1: none. Returns calls seen since the last arm().
void arm(int64_t nth, How how = How::fail);
int64_t disarm();
/// Whether the armed call came.
bool fired();

}  // namespace foundry::faults
