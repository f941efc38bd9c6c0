#include "device/metal/steps.h"

#include <algorithm>
#include <utility>

#include "device/metal/faults.h"

namespace foundry {

uint64_t Steps::submitted(Parts parts, uint64_t queue) {
  const std::lock_guard lock(mutex_);
  ++submitted_;
  if (parts.empty()) return submitted_;
  residency_->submitted(submitted_);
  under_way_.push_back({submitted_, queue, std::move(parts)});
  return submitted_;
}

void Steps::wait(uint64_t step) {
  wait_for_ends(step);
  const std::lock_guard lock(mutex_);
  if (step >= failure_.from && step <= failure_.to) throw_fault(failure_.commands, failure_.again);
}

void Steps::settle() { wait_for_ends(UINT64_MAX); }

bool Steps::failed(uint64_t queue) const {
  const std::lock_guard lock(mutex_);
  return queue < usable_;
}

bool Steps::first_before(uint64_t step, Step& first) const {
  const std::lock_guard lock(mutex_);
  if (under_way_.empty() || under_way_.front().number > step) return false;
  first = under_way_.front();
  return true;
}

void Steps::wait_for_ends(uint64_t step) {
  Step first;
  if (step == UINT64_MAX) {  // others may submit meanwhile: those are not waited for
    const std::lock_guard lock(mutex_);
    step = submitted_;
  }
  while (first_before(step, first)) {
    for (id<MTLCommandBuffer> part : first.parts) [part waitUntilCompleted];
    ended(first);
  }
}

/// Threads may wait for the same step: the first to see it ended takes it off. What came behind one that failed
/// computed on nothing, so those have failed with it.
void Steps::ended(const Step& step) {
  const std::lock_guard lock(mutex_);
  if (under_way_.empty() || under_way_.front().number != step.number) return;
  under_way_.pop_front();
  residency_->ended(step.number);
  const auto bad = std::find_if(step.parts.begin(), step.parts.end(),
                                [](id<MTLCommandBuffer> part) { return part.status == MTLCommandBufferStatusError; });
  if (bad == step.parts.end()) {
    worked_ = worked_ || step.queue == usable_;
    return;
  }
  const bool first_of_queue = step.queue == usable_;
  if (step.number > failure_.to) failure_ = {*bad, step.number, submitted_, first_of_queue && !worked_};
  if (first_of_queue) usable_ = step.queue + 1, worked_ = false;
}

}  // namespace foundry
