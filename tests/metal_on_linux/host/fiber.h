// A stack of its own, switched to and from by hand; the sanitizers are told.
#pragma once
#include <cstddef>

namespace metal_host {

class Fiber {
 public:
  explicit Fiber(size_t stack_bytes);
  ~Fiber();
  Fiber(const Fiber&) = delete;

  /// From the scheduler: runs `entry(argument)` from its beginning at the next resume().
  void start(void (*entry)(void*), void* argument);
  /// From the scheduler: runs until the fiber yields.
  void resume();
  /// From inside.
  void yield();
  /// From inside, once: never comes back.
  [[noreturn]] void finish();

 private:
  static void main();

  char* stack_;
  size_t stack_bytes_;
  void* own_ = nullptr;  // stack pointers
  void* scheduler_ = nullptr;
  void (*entry_)(void*) = nullptr;
  void* argument_ = nullptr;
  // Of the sanitizers.
  void* thread_fiber_ = nullptr;
  void* scheduler_fiber_ = nullptr;
  void* own_fake_ = nullptr;
  void* scheduler_fake_ = nullptr;
  const void* scheduler_stack_ = nullptr;
  size_t scheduler_stack_bytes_ = 0;
};

/// What happens before `release` of a place happens before what follows `acquire` of it, for the thread sanitizer.
void sanitizer_release(void* place);
void sanitizer_acquire(void* place);

}  // namespace metal_host
