#include "device/cpu/experts.h"

#include <algorithm>

#include "base/thread_pool.h"

namespace foundry::cpu {
namespace {

uint64_t slots_of(const WeightView& view) {
  return view.kept == 0 ? view.matrices : std::min(view.kept, view.matrices);
}
uint64_t panels_of(const WeightView& view) { return (view.rows / view.matrices + kLanes - 1) / kLanes; }
uint64_t panel_bytes(const CpuKernels& kernels, const WeightView& view) {
  return kernels.panel_bytes(static_cast<uint32_t>(view.type), view.cols);
}
uint64_t room_bytes(const WeightView& view) {  // of a thread
  return view.made == nullptr ? 0 : view.bytes / view.rows * kLanes;
}

}  // namespace

uint64_t Experts::bytes(const CpuKernels& kernels, const WeightView& view, uint32_t threads) {
  return slots_of(view) * panels_of(view) * panel_bytes(kernels, view) + threads * room_bytes(view);
}

Experts::Experts(const CpuKernels& kernels, WeightView view, std::byte* room)
    : kernels_(kernels),
      view_(std::move(view)),
      of_expert_(panels_of(view_)),
      panel_bytes_(panel_bytes(kernels, view_)),
      expert_bytes_(of_expert_ * panel_bytes_),
      room_(room),
      rooms_(room + slots_of(view_) * expert_bytes_),
      slot_of_(view_.matrices, kNone),
      slots_(slots_of(view_)) {}

uint32_t Experts::oldest() const {
  const auto least =
      std::min_element(slots_.begin(), slots_.end(), [](const Slot& a, const Slot& b) { return a.used < b.used; });
  return static_cast<uint32_t>(least - slots_.begin());
}

uint32_t Experts::pack(uint32_t* experts, uint32_t n, ThreadPool& pool) {
  ++calls_;
  uint32_t* const missing = std::partition(experts, experts + n, [&](uint32_t e) { return slot_of_[e] != kNone; });
  const auto taken = static_cast<uint32_t>(std::min<uint64_t>(n, slots_.size()));
  for (uint32_t* e = experts; e < missing; ++e) slots_[slot_of_[*e]].used = calls_;
  for (uint32_t* e = missing; e < experts + taken; ++e) {
    const uint32_t slot = oldest();  // none of this call's: there are at least as many slots
    if (slots_[slot].expert != kNone) slot_of_[slots_[slot].expert] = kNone;
    slots_[slot] = {*e, calls_};
    slot_of_[*e] = slot;
  }
  const uint64_t rows = view_.rows / view_.matrices,
                 fresh = missing < experts + taken ? static_cast<uint64_t>(experts + taken - missing) : 0;
  if (fresh == 0) return taken;
  const auto tell = [&](Need need) {
    for (const uint32_t* e = missing; e < experts + taken; ++e) view_.advise(*e * rows, rows, need);
  };
  tell(Need::now);
  pool.parallel_for(fresh * of_expert_, [&](uint64_t task, uint32_t thread) {
    const uint32_t expert = missing[task / of_expert_];
    const uint64_t panel = task % of_expert_, first = panel * kLanes, count = std::min<uint64_t>(kLanes, rows - first);
    const std::byte* from = view_.at(expert * rows + first, count, rooms_ + thread * room_bytes(view_));
    kernels_.pack({static_cast<uint32_t>(view_.type), static_cast<uint32_t>(count), view_.cols, from},
                  room_ + slot_of_[expert] * expert_bytes_ + panel * panel_bytes_);
  });
  tell(Need::not_now);
  return taken;
}

}  // namespace foundry::cpu
