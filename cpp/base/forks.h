// What a fork of the process means for objects that threads are inside of. Threads don't survive a fork: in the child,
// whatever one of them was in the middle of stays half done, and its locks stay locked for ever. So each object that
// must not be used then counts who is inside, and a fork marks it: calls of the child get a ForkedError before they
// touch a lock.
#pragma once
#include <atomic>
#include <cstdint>

namespace foundry {

/// How often this process has forked away from its ancestors since the program began: threads made under another number
/// are gone.
uint64_t fork_generation();

class ForkGuarded {
 public:
  ForkGuarded();
  ~ForkGuarded();
  ForkGuarded(const ForkGuarded&) = delete;

  /// In a child: somebody was inside when the process forked, so nothing of this object can be relied on or given back.
  bool abandoned() const { return abandoned_.load(std::memory_order_acquire); }

  /// Held while a call is inside. ForkedError where the object is abandoned.
  class Inside {
   public:
    explicit Inside(ForkGuarded& of);
    ~Inside() { of_.inside_.fetch_sub(1, std::memory_order_release); }
    Inside(const Inside&) = delete;

   private:
    ForkGuarded& of_;
  };

 private:
  friend struct ForkHandlers;
  std::atomic<uint32_t> inside_{0};
  std::atomic<bool> abandoned_{false};
  ForkGuarded *before_ = nullptr, *after_ = nullptr;  // all of them, in one list
};

}  // namespace foundry
