// The scheduler's part in steps ahead of the host: who may be in one.
#include <algorithm>

#include "engine/scheduler.h"

namespace foundry {

Scheduler::Waiting::Waiting(Scheduler& scheduler, AheadMember& waits) : of(scheduler), member(waits) {
  const std::lock_guard lock(of.mutex_);
  if (!member.joined_) {
    of.members_.push_back(&member);
    member.joined_ = true;
  }
  member.waits_ = true;
}

Scheduler::Waiting::~Waiting() {
  RankedLock lock(of.mutex_);
  while (member.held_) of.wait(lock);
  member.waits_ = false;
}

void Scheduler::leave(AheadMember& member) noexcept {
  const std::lock_guard lock(mutex_);
  if (!member.joined_) return;
  std::erase(members_, &member);
  member.joined_ = false;
}

/// The others are those whose calls wait, and those between two calls, whose sessions are kept from beginning one meanwhile.
void Scheduler::start_ahead(AheadMember& member) {
  std::vector<AheadMember*> others, held, locked;
  {
    const std::lock_guard lock(mutex_);
    others.reserve(members_.size()), held.reserve(members_.size()), locked.reserve(members_.size());
    for (AheadMember* other : members_) {
      if (other == &member) continue;
      if (other->waits_)
        other->held_ = true, held.push_back(other);
      else if (other->calls().try_lock())
        locked.push_back(other);
      else
        continue;
      others.push_back(other);
    }
  }
  uint64_t steps = 0, rows = 0;
  std::exception_ptr thrown;
  try {
    while (const size_t n = ahead_.start(member, others)) ++steps, rows += n;
  } catch (...) {
    thrown = std::current_exception();
  }
  for (AheadMember* other : locked) other->calls().unlock();  // and may be gone from here on
  {
    const std::lock_guard lock(mutex_);
    for (AheadMember* other : held) other->held_ = false;
    counts_.steps += steps, counts_.decode_steps += steps;
    counts_.rows += rows, counts_.decode_rows += rows;
    changed_.notify_all();
  }
  if (thrown != nullptr) std::rethrow_exception(thrown);
}

}  // namespace foundry
