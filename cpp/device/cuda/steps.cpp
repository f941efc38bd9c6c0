#include "device/cuda/steps.h"

#include <utility>

#include "base/error.h"

namespace foundry::cuda {

uint64_t Steps::submit(Stream stream) {
  const Gpu::Current current(*gpu_);
  const Driver& driver = gpu_->driver();
  std::shared_ptr<Event> event(new Event(nullptr), [gpu = gpu_](Event* one) {
    const Gpu::Current there(*gpu);
    if (*one != nullptr) gpu->driver().destroy_event(*one);
    delete one;
  });
  gpu_->check(driver.make_event(event.get(), kEventWithoutTime), "an event");
  gpu_->check(driver.record(*event, stream), "a step");
  const std::lock_guard lock(mutex_);
  under_way_.push_back({submitted_ + 1, std::move(event)});
  memory_->submitted(++submitted_);
  return submitted_;
}

void Steps::wait(uint64_t step) {
  wait_for_ends(step);
  const std::lock_guard lock(mutex_);
  if (failure_ != nullptr && step >= failed_from_ && step <= failed_to_) std::rethrow_exception(failure_);
}

void Steps::settle() noexcept { wait_for_ends(UINT64_MAX); }

uint64_t Steps::ended() const {
  const std::lock_guard lock(mutex_);
  return ended_;
}

bool Steps::first_before(uint64_t step, Step& first) const {
  const std::lock_guard lock(mutex_);
  if (under_way_.empty() || under_way_.front().number > step) return false;
  first = under_way_.front();
  return true;
}

void Steps::wait_for_ends(uint64_t step) {
  const Gpu::Current current(*gpu_);
  Step first;
  if (step == UINT64_MAX) {  // others may submit meanwhile: those are not waited for
    const std::lock_guard lock(mutex_);
    step = submitted_;
  }
  while (first_before(step, first)) {
    std::exception_ptr failure;
    try {
      gpu_->check(gpu_->driver().wait_for_event(*first.event), "a step failed on the GPU");
    } catch (...) {
      failure = std::current_exception();
    }
    end(first, failure);
  }
}

/// Threads may wait for the same step: the first to see it ended takes it off. What came behind one that failed
/// computed on nothing, so those have failed with it.
void Steps::end(const Step& step, std::exception_ptr failure) {
  const std::lock_guard lock(mutex_);
  if (under_way_.empty() || under_way_.front().number != step.number) return;
  under_way_.pop_front();
  ended_ = step.number;
  memory_->ended(step.number);
  if (failure == nullptr || step.number <= failed_to_) return;
  failure_ = std::move(failure), failed_from_ = step.number, failed_to_ = submitted_;
}

}  // namespace foundry::cuda
