#include "fiber.h"

#include <sys/mman.h>

#include <cstdint>
#include <new>

// Under the thread sanitizer this file and runtime.cpp are built without it, and say so: FOUNDRY_TSAN_FIBERS.
#ifdef __has_feature
#if __has_feature(address_sanitizer)
#define FOUNDRY_ASAN_FIBERS 1
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#define FOUNDRY_ASAN_FIBERS 1
#endif
#ifdef FOUNDRY_ASAN_FIBERS
extern "C" void __sanitizer_start_switch_fiber(void** fake, const void* stack, size_t bytes);
extern "C" void __sanitizer_finish_switch_fiber(void* fake, const void** stack, size_t* bytes);
extern "C" void __asan_unpoison_memory_region(const volatile void* place, size_t bytes);
#endif
#ifdef FOUNDRY_TSAN_FIBERS
extern "C" {
void* __tsan_get_current_fiber();
void* __tsan_create_fiber(unsigned flags);
void __tsan_destroy_fiber(void* fiber);
void __tsan_switch_to_fiber(void* fiber, unsigned flags);
void __tsan_acquire(void* place);
void __tsan_release(void* place);
}
#endif

// foundry_switch(save, to): pushes what calls must keep, swaps stacks, pops.
#if defined(__x86_64__)
asm(R"(
.text
.globl foundry_switch
.type foundry_switch,@function
foundry_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size foundry_switch,.-foundry_switch
)");
#elif defined(__aarch64__) && defined(__linux__)
asm(R"(
.text
.globl foundry_switch
.type foundry_switch,@function
foundry_switch:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.size foundry_switch,.-foundry_switch
)");
#else
#error "fibers: no stack switch for this processor"
#endif
extern "C" void foundry_switch(void** save, void* to);

namespace metal_host {
namespace {
thread_local Fiber* beginning = nullptr;  // handed to main() on its new stack
}

Fiber::Fiber(size_t stack_bytes) : stack_bytes_(stack_bytes) {
  void* memory = mmap(nullptr, stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  stack_ = static_cast<char*>(memory);
}

Fiber::~Fiber() {
#ifdef FOUNDRY_TSAN_FIBERS
  if (thread_fiber_ != nullptr) __tsan_destroy_fiber(thread_fiber_);
#endif
  munmap(stack_, stack_bytes_);
}

void Fiber::start(void (*entry)(void*), void* argument) {
  entry_ = entry, argument_ = argument;
  own_fake_ = nullptr;
#ifdef FOUNDRY_ASAN_FIBERS
  __asan_unpoison_memory_region(stack_, stack_bytes_);  // frames of the last thread on it, which never returned
#endif
#if defined(__x86_64__)
  auto** top = reinterpret_cast<void**>(stack_ + stack_bytes_ - 64);
  *--top = nullptr;  // main() never returns; it finds its stack as after a call
  *--top = reinterpret_cast<void*>(&Fiber::main);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
#else
  auto** top = reinterpret_cast<void**>(stack_ + stack_bytes_ - 64 - 160);
  for (int i = 0; i < 20; ++i) top[i] = nullptr;
  top[11] = reinterpret_cast<void*>(&Fiber::main);  // x30
#endif
  own_ = top;
#ifdef FOUNDRY_TSAN_FIBERS
  if (thread_fiber_ != nullptr) __tsan_destroy_fiber(thread_fiber_);
  thread_fiber_ = __tsan_create_fiber(0);
  scheduler_fiber_ = __tsan_get_current_fiber();
#endif
}

void Fiber::resume() {
  beginning = this;
#ifdef FOUNDRY_ASAN_FIBERS
  __sanitizer_start_switch_fiber(&scheduler_fake_, stack_, stack_bytes_);
#endif
#ifdef FOUNDRY_TSAN_FIBERS
  __tsan_switch_to_fiber(thread_fiber_, 1);
#endif
  foundry_switch(&scheduler_, own_);
#ifdef FOUNDRY_ASAN_FIBERS
  __sanitizer_finish_switch_fiber(scheduler_fake_, nullptr, nullptr);
#endif
}

void Fiber::yield() {
#ifdef FOUNDRY_ASAN_FIBERS
  __sanitizer_start_switch_fiber(&own_fake_, scheduler_stack_, scheduler_stack_bytes_);
#endif
#ifdef FOUNDRY_TSAN_FIBERS
  __tsan_switch_to_fiber(scheduler_fiber_, 1);
#endif
  foundry_switch(&own_, scheduler_);
#ifdef FOUNDRY_ASAN_FIBERS
  __sanitizer_finish_switch_fiber(own_fake_, &scheduler_stack_, &scheduler_stack_bytes_);
#endif
}

void Fiber::finish() {
#ifdef FOUNDRY_ASAN_FIBERS
  __sanitizer_start_switch_fiber(nullptr, scheduler_stack_, scheduler_stack_bytes_);
#endif
#ifdef FOUNDRY_TSAN_FIBERS
  __tsan_switch_to_fiber(scheduler_fiber_, 1);
#endif
  void* gone;
  foundry_switch(&gone, scheduler_);
  __builtin_trap();
}

void Fiber::main() {
  Fiber* self = beginning;
#ifdef FOUNDRY_ASAN_FIBERS
  __sanitizer_finish_switch_fiber(nullptr, &self->scheduler_stack_, &self->scheduler_stack_bytes_);
#endif
  self->entry_(self->argument_);
  self->finish();
}

void sanitizer_release([[maybe_unused]] void* place) {
#ifdef FOUNDRY_TSAN_FIBERS
  __tsan_release(place);
#endif
}

void sanitizer_acquire([[maybe_unused]] void* place) {
#ifdef FOUNDRY_TSAN_FIBERS
  __tsan_acquire(place);
#endif
}

}  // namespace metal_host
