#include "runtime.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>

#include "fiber.h"

namespace metal_host {
namespace {

constexpr size_t kStackBytes = 128 << 10;

struct Thread;

/// A place where threads wait for each other: a barrier of the threadgroup or an operation of a simdgroup.
struct Meeting {
  uint32_t expected = 0, arrived = 0;
  uint64_t count = 0;          // meetings held
  const void* site = nullptr;  // barrier: where its first thread is
  const char* what = nullptr;
};

struct Simdgroup {
  Meeting meeting;
  char slots[2][kLanes][kSlotBytes];  // of this meeting and the one before
};

struct Group;

struct Thread {
  Thread() : fiber(kStackBytes) {}
  Fiber fiber;
  Group* group = nullptr;
  Size position;
  uint32_t index = 0;
  bool done = false;
  const Meeting* waits_at = nullptr;
  uint64_t waits_for = 0;  // the count that ends the wait
};

/// Threadgroup memory, aligned as its type asks and no better: an array of halves begins at an odd place of two bytes. The thread
/// sanitizer must never have seen it before: then it is taken from the system and not reused.
class Memory {
 public:
  Memory(size_t bytes, size_t align) : skew_(align < kMostAligned ? align : 0), bytes_(bytes + skew_) {
#ifdef FOUNDRY_TSAN_FIBERS
    data_ = reinterpret_cast<char*>(
        syscall(SYS_mmap, nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
#else
    data_ = static_cast<char*>(std::malloc(bytes_));
#endif
    for (size_t i = 0; i < bytes_; ++i) static_cast<volatile char*>(data_)[i] = static_cast<char>(0xff);
  }
  ~Memory() {
#ifdef FOUNDRY_TSAN_FIBERS
    madvise(data_, bytes_, MADV_DONTNEED);  // the address is spent
#else
    std::free(data_);
#endif
  }
  Memory(const Memory&) = delete;
  char* data() const { return data_ + skew_; }

 private:
  static constexpr size_t kMostAligned = 16;
  char* data_;
  size_t skew_, bytes_;
};

/// A threadgroup in hand.
struct Group {
  const Launch* launch = nullptr;
  Body body = nullptr;
  const char* kernel = nullptr;
  Size at;
  std::vector<std::unique_ptr<Thread>> threads;
  std::vector<Simdgroup> simdgroups;
  Meeting barrier;
  std::map<int, std::unique_ptr<Memory>> memory;
  size_t memory_bytes = 0;
  uint32_t alive = 0;
};

thread_local Thread* current = nullptr;

/// Fibers of launches that have ended: their stacks are worth more than they cost. The thread sanitizer wants new ones.
std::vector<std::unique_ptr<Thread>>& idle() {
  static thread_local std::vector<std::unique_ptr<Thread>> threads;
  return threads;
}
std::unique_ptr<Thread> take_thread() {
  if (idle().empty()) return std::make_unique<Thread>();
  std::unique_ptr<Thread> thread = std::move(idle().back());
  idle().pop_back();
  return thread;
}
void give_back(std::vector<std::unique_ptr<Thread>>& threads) {
#ifndef FOUNDRY_TSAN_FIBERS
  for (auto& thread : threads) idle().push_back(std::move(thread));
#endif
  threads.clear();
}

uint32_t volume(const Size& size) { return size.x * size.y * size.z; }

Size unfold(uint64_t index, const Size& size) {
  return {static_cast<uint32_t>(index % size.x), static_cast<uint32_t>(index / size.x % size.y),
          static_cast<uint32_t>(index / size.x / size.y)};
}

void enter(void* argument) {
  auto* thread = static_cast<Thread*>(argument);
  Group& group = *thread->group;
  sanitizer_acquire(&group);  // the launch happens before
  group.body(*group.launch);
  sanitizer_release(&group.alive);
  thread->done = true;
  --group.alive;
}

/// True for the thread that completes the meeting; the others wait.
void meet(Meeting& meeting) {
  Thread& self = *current;
  if (++meeting.arrived == meeting.expected) {
    meeting.arrived = 0;
    ++meeting.count;
    return;
  }
  self.waits_at = &meeting;
  self.waits_for = meeting.count + 1;
  while (meeting.count < self.waits_for) self.fiber.yield();
  self.waits_at = nullptr;
  current = &self;
}

void begin_group(Group& group, uint64_t index) {
  group.at = unfold(index, group.launch->grid);
  group.memory.clear();
  group.memory_bytes = 0;
  group.alive = static_cast<uint32_t>(group.threads.size());
  group.barrier = {group.alive};
  for (size_t s = 0; s < group.simdgroups.size(); ++s)
    group.simdgroups[s].meeting = {std::min<uint32_t>(kLanes, group.alive - static_cast<uint32_t>(s) * kLanes)};
  for (uint32_t i = 0; i < group.alive; ++i) {
    Thread& thread = *group.threads[i];
    thread.group = &group, thread.index = i, thread.done = false, thread.waits_at = nullptr;
    thread.position = unfold(i, group.launch->threads);
    thread.fiber.start(enter, &thread);
  }
  sanitizer_release(&group);
}

/// Runs each thread that can go on, in the seed's order; simdgroups may drift apart.
bool run_round(Group& group, std::vector<uint32_t>& order, std::mt19937_64& random) {
  const bool shuffled = group.launch->seed != 0;
  if (shuffled) std::shuffle(order.begin(), order.end(), random);
  bool progress = false;
  for (const uint32_t s : order) {
    if (shuffled && progress && random() % 4 == 0) continue;
    const uint32_t lanes = std::min<uint32_t>(kLanes, static_cast<uint32_t>(group.threads.size()) - s * kLanes);
    const uint64_t mix = shuffled ? random() : 0;
    const uint32_t step = shuffled && lanes == kLanes ? (mix & 31) | 1 : 1, first = shuffled ? mix >> 8 & 31 : 0;
    for (uint32_t i = 0; i < lanes; ++i) {
      Thread& thread = *group.threads[s * kLanes + (lanes == kLanes ? (i * step + first) & 31 : i)];
      if (thread.done || (thread.waits_at != nullptr && thread.waits_at->count < thread.waits_for)) continue;
      progress = true;
      current = &thread;
      thread.fiber.resume();
    }
  }
  return progress;
}

void run_group(Group& group, uint64_t index, std::mt19937_64& random) {
  begin_group(group, index);
  std::vector<uint32_t> order(group.simdgroups.size());
  std::iota(order.begin(), order.end(), 0u);
  while (group.alive != 0)
    if (!run_round(group, order, random)) {
      current = group.threads[0].get();
      fail("a barrier or simdgroup operation that not every thread reaches");
    }
  sanitizer_acquire(&group.alive);
}

}  // namespace

std::map<std::string, Body>& kernels() {
  static std::map<std::string, Body> all;
  return all;
}

void fail(const char* what) {
  const Group& group = *current->group;
  std::fprintf(stderr, "metal on the host: %s (kernel %s, threadgroup %u,%u,%u)\n", what, group.kernel, group.at.x,
               group.at.y, group.at.z);
  for (const Meeting* meeting : {static_cast<const Meeting*>(nullptr), &group.barrier}) {
    size_t n = 0;
    for (const auto& thread : group.threads) n += !thread->done && thread->waits_at == meeting ? 1 : 0;
    std::fprintf(stderr, "  %zu threads %s\n", n, meeting == nullptr ? "run" : "are at a threadgroup_barrier");
  }
  std::_Exit(66);
}

void run(const Launch& launch, const std::string& kernel) {
  const auto found = kernels().find(kernel);
  if (found == kernels().end() || volume(launch.threads) == 0 || volume(launch.threads) > kMostThreads) {
    std::fprintf(stderr, "metal on the host: no kernel \"%s\", or %u threads\n", kernel.c_str(),
                 volume(launch.threads));
    std::_Exit(66);
  }
  Group group;
  group.launch = &launch, group.body = found->second, group.kernel = kernel.c_str();
  for (uint32_t i = 0; i < volume(launch.threads); ++i) group.threads.push_back(take_thread());
  group.simdgroups.resize((group.threads.size() + kLanes - 1) / kLanes);
  std::mt19937_64 random(launch.seed);
  std::vector<uint64_t> order(uint64_t{launch.grid.x} * launch.grid.y * launch.grid.z);
  std::iota(order.begin(), order.end(), uint64_t{0});
  if (launch.seed != 0) std::shuffle(order.begin(), order.end(), random);
  for (const uint64_t index : order) run_group(group, index, random);
  current = nullptr;
  give_back(group.threads);
}

uint32_t lane() { return current->index % kLanes; }

void threadgroup_barrier(const void* site) {
  Group& group = *current->group;
  if (group.barrier.arrived == 0) group.barrier.site = site;
  if (group.barrier.site != site) fail("threads of one threadgroup are at different barriers");
  sanitizer_release(&group.barrier);
  meet(group.barrier);
  sanitizer_acquire(&group.barrier);
}

namespace {
Simdgroup& own_simdgroup(const char* what) {
  Simdgroup& simdgroup = current->group->simdgroups[current->index / kLanes];
  if (simdgroup.meeting.arrived == 0) simdgroup.meeting.what = what;
  if (simdgroup.meeting.what != what) fail("lanes of one simdgroup are at different operations");
  return simdgroup;
}
}  // namespace

void simdgroup_barrier() {
  Simdgroup& simdgroup = own_simdgroup("simdgroup_barrier");
  sanitizer_release(&simdgroup);
  meet(simdgroup.meeting);
  sanitizer_acquire(&simdgroup);
}

const char* exchange(const void* value, size_t bytes, const char* what) {
  Simdgroup& simdgroup = own_simdgroup(what);
  char (&slots)[kLanes][kSlotBytes] = simdgroup.slots[simdgroup.meeting.count % 2];
  if (bytes > kSlotBytes) fail("a value too large to exchange");
  // Byte by byte: the sanitizer must not take this for the kernel's own write.
  for (size_t i = 0; i < bytes; ++i)
    static_cast<volatile char*>(slots[lane()])[i] = static_cast<const volatile char*>(value)[i];
  meet(simdgroup.meeting);
  return &slots[0][0];
}

void* threadgroup_memory(int id, size_t bytes, size_t align) {
  Group& group = *current->group;
  std::unique_ptr<Memory>& memory = group.memory[id];
  if (memory == nullptr) {
    memory = std::make_unique<Memory>(bytes, align);
    group.memory_bytes += bytes;
    if (group.memory_bytes > group.launch->most_memory) fail("more threadgroup memory than there is");
  }
  return memory->data();
}

Size position(Kind kind) {
  const Group& group = *current->group;
  switch (kind) {
    case Kind::group:
      return group.at;
    case Kind::thread_in_group:
      return current->position;
    case Kind::group_size:
      return group.launch->threads;
    case Kind::grid_size:
      return group.launch->grid;
    case Kind::global:
      return {group.at.x * group.launch->threads.x + current->position.x,
              group.at.y * group.launch->threads.y + current->position.y,
              group.at.z * group.launch->threads.z + current->position.z};
    case Kind::grid_threads: {
      const Size &groups = group.launch->grid, &threads = group.launch->threads;
      return {groups.x * threads.x, groups.y * threads.y, groups.z * threads.z};
    }
    default:
      fail("no position of this kind");
  }
}

uint32_t number(Kind kind) {
  switch (kind) {
    case Kind::thread_index:
      return current->index;
    case Kind::simdgroup:
      return current->index / kLanes;
    case Kind::lane:
      return current->index % kLanes;
    case Kind::simdgroups:
      return static_cast<uint32_t>(current->group->simdgroups.size());
    case Kind::quadgroup:
      return current->index / 4;
    case Kind::quad_lane:
      return current->index % 4;
    default:
      return position(kind).x;
  }
}

bool constant_bit(uint32_t index) {
  if (index >= 32) fail("a function constant past the 32 that a launch has");
  return (current->group->launch->constants >> index & 1) != 0;
}

int32_t constant_number(uint32_t index) {
  const auto& numbers = current->group->launch->numbers;
  const auto found = numbers.find(index);
  if (found == numbers.end()) fail("a function constant that the launch does not have");
  return found->second;
}

}  // namespace metal_host
