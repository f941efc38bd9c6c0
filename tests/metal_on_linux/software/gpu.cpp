#include "metal_on_linux/software/gpu.h"

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>

namespace software_gpu {
namespace {

constexpr uint64_t kAlign = 64;

struct Live {
  std::mutex mutex;
  std::set<const Allocation*> allocations;
  uint64_t bytes = 0;
};
Live& live() {
  static auto* made = new Live;
  return *made;
}

const char* running = nullptr;  // the kernel in hand

/// Memory of ours that may not be touched was.
void on_segv(int signal, siginfo_t* info, void*) {
  for (const Allocation* one : live().allocations)
    if (one->holds(info->si_addr)) {
      char text[200];
      const int64_t at = static_cast<std::byte*>(info->si_addr) - one->data();
      const int n =
          std::snprintf(text, sizeof text, "software Metal: %s touched byte %lld of a buffer of %llu: %s\n", running,
                        static_cast<long long>(at), static_cast<unsigned long long>(one->bytes()),
                        at >= 0 && static_cast<uint64_t>(at) < one->bytes() ? "it is not resident" : "outside");
      (void)!write(2, text, static_cast<size_t>(n));
      _exit(66);
    }
  if (running != nullptr) {
    char text[200];
    const int n =
        std::snprintf(text, sizeof text, "software Metal: %s touched %p, where no buffer is\n", running, info->si_addr);
    (void)!write(2, text, static_cast<size_t>(n));
    _exit(66);
  }
  ::signal(signal, SIG_DFL);  // not ours: again, as if nobody had looked
}

void watch() {
  static const bool watching = [] {
    struct sigaction action{};
    action.sa_sigaction = on_segv, action.sa_flags = SA_SIGINFO;
    sigaction(SIGSEGV, &action, nullptr);
    return true;
  }();
  (void)watching;
}

void run_one(const Command& command) {
  metal_host::Launch launch;
  launch.grid = command.grid, launch.threads = command.threads, launch.constants = command.constants;
  launch.seed = schedule == 0 ? 0 : schedule * 1'000'003 + totals().launches;
  for (size_t i = 0; i < command.bindings.size(); ++i) {
    const Binding& binding = command.bindings[i];
    if (binding.allocation != nullptr) {
      launch.buffers[i] = binding.allocation->data() + binding.offset;
      launch.lengths[i] = binding.allocation->bytes() - binding.offset;
    } else if (!binding.bytes.empty()) {
      launch.buffers[i] = const_cast<std::byte*>(binding.bytes.data());
      launch.lengths[i] = binding.bytes.size();
    }
  }
  running = command.kernel.c_str();
  metal_host::run(launch, command.kernel);
  running = nullptr;
  ++totals().launches;
  totals().kernels.insert(command.kernel);
}

}  // namespace

Allocation::Allocation(uint64_t bytes) : bytes_(bytes) {
  watch();
  const auto page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  const uint64_t rounded = (bytes + kAlign - 1) / kAlign * kAlign, whole = (rounded + page - 1) / page * page;
  mapped_bytes_ = whole + page;
  mapped_ = mmap(nullptr, mapped_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped_ == MAP_FAILED) throw std::bad_alloc();
  mprotect(static_cast<std::byte*>(mapped_) + whole, page, PROT_NONE);
  data_ = static_cast<std::byte*>(mapped_) + whole - rounded;
  std::memset(data_, 0xff, rounded);
  const std::lock_guard lock(live().mutex);
  live().allocations.insert(this);
  live().bytes += bytes_;
}

Allocation::~Allocation() {
  if (!own()) return;
  {
    const std::lock_guard lock(live().mutex);
    live().allocations.erase(this);
    live().bytes -= bytes_;
  }
  munmap(mapped_, mapped_bytes_);
}

bool Allocation::holds(const void* address) const {
  const auto* at = static_cast<const std::byte*>(address);
  return own() && at >= mapped_ && at < static_cast<const std::byte*>(mapped_) + mapped_bytes_;
}

void Allocation::allow(bool access) const {
  const auto page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  mprotect(mapped_, mapped_bytes_ - page, access ? PROT_READ | PROT_WRITE : PROT_NONE);
}

void broken(const char* rule, const std::string& detail) {
  std::fprintf(stderr, "software Metal: %s %s\n", rule, detail.c_str());
  std::_Exit(66);
}

void run(const Pass& pass, const std::set<const Allocation*>& resident) {
  if (only_timed) {
    ++totals().passes;
    return;
  }
  std::vector<const Allocation*> away;
  {
    const std::lock_guard lock(live().mutex);
    for (const Allocation* one : live().allocations)
      if (!pass.used.contains(one) && !resident.contains(one)) away.push_back(one);
  }
  for (const Allocation* one : away) one->allow(false);
  const bool barriers = fault != "barriers";
  for (size_t begin = 0, end = 0; begin < pass.commands.size(); begin = end) {
    for (end = begin + 1; end < pass.commands.size(); ++end)
      if (pass.serial || (barriers && pass.commands[end].behind_barrier)) break;
    // Nothing orders these: the schedule does.
    for (size_t i = begin; i < end; ++i) run_one(pass.commands[schedule % 2 == 1 ? end - 1 - (i - begin) : i]);
  }
  for (const Allocation* one : away) one->allow(true);
  ++totals().passes;
  totals().fence_waits += pass.waits ? 1 : 0;
}

Totals& totals() {
  static auto* made = new Totals;
  return *made;
}

uint64_t allocated_bytes() {
  const std::lock_guard lock(live().mutex);
  return live().bytes;
}

}  // namespace software_gpu
