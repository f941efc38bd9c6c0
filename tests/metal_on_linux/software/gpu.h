// A GPU in software, as strict as Apple's validation layer: runs command buffers of translated kernels as late as it may, orders
// dispatches against the caller wherever no barrier or fence says otherwise, and keeps memory that is not resident out of reach.
#pragma once
#include <array>
#include <atomic>
#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "metal_on_linux/host/runtime.h"

namespace software_gpu {

/// Memory with a page behind it that nobody may touch.
class Allocation {
 public:
  explicit Allocation(uint64_t bytes);
  Allocation(void* data, uint64_t bytes) : data_(static_cast<std::byte*>(data)), bytes_(bytes) {}  // the caller's
  ~Allocation();
  Allocation(const Allocation&) = delete;
  std::byte* data() const { return data_; }
  uint64_t bytes() const { return bytes_; }
  bool own() const { return mapped_ != nullptr; }
  bool holds(const void* address) const;
  void allow(bool access) const;

 private:
  std::byte* data_;
  uint64_t bytes_;
  void* mapped_ = nullptr;
  uint64_t mapped_bytes_ = 0;
};

struct Binding {
  const Allocation* allocation = nullptr;  // or null: bytes
  uint64_t offset = 0;
  std::vector<std::byte> bytes;
};

struct Command {
  std::string kernel;
  uint32_t constants = 0;
  metal_host::Size grid, threads;
  std::array<Binding, metal_host::kMostBuffers> bindings;
  bool behind_barrier = false;
};

/// What one encoder of a command buffer has.
struct Pass {
  std::vector<Command> commands;
  std::set<const Allocation*> used;  // bound, or told of by useResources
  bool waits = false, updates = false;
  bool serial = false;
};

/// A broken rule: says which, and ends the process.
[[noreturn]] void broken(const char* rule, const std::string& detail = "");
/// `resident`: those of the queue's sets as committed.
void run(const Pass& pass, const std::set<const Allocation*>& resident);

struct Totals {
  uint64_t launches = 0, passes = 0, fence_waits = 0;
  std::set<std::string> kernels;
};
Totals& totals();
uint64_t allocated_bytes();
/// 0: threads and free dispatches in order; else shuffled by it, free dispatches the other way round where it is odd.
inline uint64_t schedule = 0;

/// Faults for tests of the harness, and of what the device says: "barriers", "fences" and "residency" are not seen, "memory" and
/// "page fault" are the end of the next command buffer, "dead" of all; a "residency set" is not made. From the
/// environment, FOUNDRY_METAL_FAULT, or set.
inline std::string fault;
inline std::atomic<uint64_t> residency_requests{0};
/// What the file of a library begins with that has all kernels.
inline constexpr const char* kLibraryLine = "software Metal library";
/// Of each library that was compiled from source, which part of a file's kernels it has; empty: all.
inline std::vector<std::string> compiled;
/// Where archives have been written, whatever became of the files.
inline std::vector<std::string> archives_written;
/// Command buffers are only timed: a test of steps that would take a processor hours.
inline bool only_timed = false;

}  // namespace software_gpu
