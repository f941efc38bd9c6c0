// Runs translated kernels on the host: each thread of a threadgroup is a fiber, with real barriers and real exchanges between the
// 32 lanes of a simdgroup. What a GPU would hang or lie about ends the process with a message: a barrier that not all
// threads reach, lanes at different operations. The order in which threads run follows a seed.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace metal_host {

constexpr uint32_t kLanes = 32, kSlotBytes = 64, kMostThreads = 1024, kMostBuffers = 31;

struct Size {
  uint32_t x = 1, y = 1, z = 1;
};
struct Launch {
  Launch() { std::fill_n(lengths, kMostBuffers, UINT64_MAX); }
  void* buffers[kMostBuffers] = {};
  uint64_t lengths[kMostBuffers];        // bytes from there on; all ones: not known
  Size grid;                             // threadgroups
  Size threads;                          // of a threadgroup
  uint64_t seed = 0;                     // 0: threads in order
  uint32_t constants = 0;                // function constants that are bools, a bit each
  std::map<uint32_t, int32_t> numbers;   // those that are whole numbers, by index
  size_t threadgroup_memory = 32 << 10;  // that a threadgroup may have; Apple's limit
  size_t room = 0;                       // bytes of it that are the kernel's [[threadgroup(0)]]
};

using Body = void (*)(const Launch&);
std::map<std::string, Body>& kernels();
/// Every threadgroup of the grid. Ends the process where a kernel breaks a rule.
void run(const Launch& launch, const std::string& kernel);
[[noreturn]] void fail(const std::string& what);

// For kernels, from inside run().
uint32_t lane();
void threadgroup_barrier(const void* site);
void simdgroup_barrier();
/// The `bytes` that each lane gives, kSlotBytes apart; `what` must be the same for all.
const char* exchange(const void* value, size_t bytes, const char* what);
/// Memory of the threadgroup, filled with NaN and aligned no better than asked; the same for each thread that asks for `id`.
void* threadgroup_memory(int id, size_t bytes, size_t align);

enum class Kind {
  buffer,
  room,
  optional_buffer,  // there if a function constant says so
  group,
  thread_in_group,
  thread_index,
  global,
  group_size,
  grid_size,
  grid_threads,
  simdgroup,
  lane,
  simdgroups,
  quadgroup,
  quad_lane
};
struct Bind {
  Kind kind;
  int index;
};
Size position(Kind kind);  // of those that are triples
uint32_t number(Kind kind);
bool constant_bit(uint32_t index);
int32_t constant_number(uint32_t index);

/// A function constant: its value is the launch's.
template <class T, uint32_t kIndex>
struct Constant {
  operator T() const {
    if constexpr (std::is_same_v<T, bool>)
      return constant_bit(kIndex);
    else
      return static_cast<T>(constant_number(kIndex));
  }
};

template <class P>
struct Argument {
  static P get(const Bind& bind, const Launch&) {
    if constexpr (std::is_arithmetic_v<P>) {
      return static_cast<P>(number(bind.kind));
    } else {
      const Size at = position(bind.kind);
      if constexpr (std::is_constructible_v<P, uint32_t, uint32_t, uint32_t>)
        return P(at.x, at.y, at.z);
      else
        return P(at.x, at.y);
    }
  }
};
/// As Apple's validation layer: something is bound, aligned, and no shorter than one of what the kernel names.
template <class T>
T* bound(const Bind& bind, const Launch& launch) {
  void* at = launch.buffers[bind.index];
  if (at == nullptr) fail("a buffer that nothing is bound to");
  if (launch.lengths[bind.index] < sizeof(T)) fail("a buffer shorter than its argument's type");
  if (reinterpret_cast<uintptr_t>(at) % alignof(T) != 0) fail("a buffer that is not aligned as its argument's type");
  return static_cast<T*>(at);
}
inline bool is_absent(const Bind& bind, const Launch& launch) {
  return bind.kind == Kind::optional_buffer && launch.buffers[bind.index] == nullptr;
}
template <class P>
struct Argument<P*> {
  static P* get(const Bind& bind, const Launch& launch) {
    if (bind.kind == Kind::room) return static_cast<P*>(threadgroup_memory(-1, launch.room, alignof(P)));
    return is_absent(bind, launch) ? nullptr : bound<P>(bind, launch);
  }
};
template <class P>
struct Argument<P&> {
  static P& get(const Bind& bind, const Launch& launch) {
    static std::remove_const_t<P> nobody_reads{};
    return is_absent(bind, launch) ? nobody_reads : *bound<P>(bind, launch);
  }
};
template <class... P, size_t N, size_t... I>
void invoke(void (*f)(P...), const Bind (&bind)[N], const Launch& launch, std::index_sequence<I...>) {
  f(Argument<P>::get(bind[I], launch)...);
}
template <class... P, size_t N>
void invoke(void (*f)(P...), const Bind (&bind)[N], const Launch& launch) {
  static_assert(sizeof...(P) == N);
  invoke(f, bind, launch, std::make_index_sequence<N>());
}

struct Registered {
  Registered(const char* name, Body body) { kernels()[name] = body; }
};

}  // namespace metal_host
