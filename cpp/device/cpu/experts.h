// Experts' matrices of one weight, packed when rows are first routed to them, as many at once as there is room for. The
// room is there from load on, so a step never lacks memory; when it is full, the experts that were used longest ago go,
// and come back from the file. What is packed has the same bits whenever it is, so nothing shows but time.
#pragma once
#include <vector>

#include "device/cpu/kernels.h"
#include "device/memory.h"
#include "formats/weight_view.h"

namespace foundry {
class ThreadPool;
}

namespace foundry::cpu {

/// Of one device, whose steps run one after another.
class Experts {
 public:
  /// Bytes that it has for this view: of slots, and of rooms where rows are made.
  static uint64_t bytes(const CpuKernels& kernels, const WeightView& view, uint32_t threads);

  /// `room` has so many bytes and outlives it; so do the view's.
  Experts(const CpuKernels& kernels, WeightView view, std::byte* room);

  /// Of experts in any order, `n` of them and each once: the first so many of the list, reordered, are packed now and
  /// stay until the next call. At least one, and as many as there are slots; those that are packed already come first.
  uint32_t pack(uint32_t* experts, uint32_t n, ThreadPool& pool);
  /// Panels of one that was packed by the last call.
  const std::byte* panels(uint32_t expert) const { return room_ + uint64_t{slot_of_[expert]} * expert_bytes_; }

 private:
  static constexpr uint32_t kNone = UINT32_MAX;
  struct Slot {
    uint32_t expert = kNone;
    uint64_t used = 0;  // the call that used it last
  };
  uint32_t oldest() const;

  const CpuKernels& kernels_;
  WeightView view_;
  uint64_t of_expert_;  // panels
  uint64_t panel_bytes_, expert_bytes_;
  std::byte* room_;
  std::byte* rooms_;  // for rows that are made, one a thread
  std::vector<uint32_t> slot_of_;
  std::vector<Slot> slots_;
  uint64_t calls_ = 0;
};

}  // namespace foundry::cpu
