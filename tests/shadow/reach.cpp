#include "shadow/reach.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <string>

#include "base/error.h"

namespace foundry::test {

Reach::Mapping Reach::map(uint64_t bytes) {
  const auto page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  const uint64_t length = std::max<uint64_t>(1, (bytes + page - 1) / page) * page;
  const std::lock_guard lock(mutex_);
  mappings_.reserve(mappings_.size() + 1);
  void* data =
      mmap(nullptr, length, open_ != 0 ? PROT_READ | PROT_WRITE : PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) throw MemoryLimitError("the system refused " + std::to_string(length) + " bytes", length, 0);
  return mappings_.emplace_back(Mapping{static_cast<std::byte*>(data), length});
}

void Reach::unmap(const Mapping& mapping) noexcept {
  const std::lock_guard lock(mutex_);
  std::erase_if(mappings_, [&](const Mapping& one) { return one.data == mapping.data; });
  munmap(mapping.data, mapping.bytes);
}

void Reach::check_outside(std::span<const std::byte> bytes) const {
  const std::lock_guard lock(mutex_);
  for (const Mapping& one : mappings_)
    if (bytes.data() + bytes.size() > one.data && bytes.data() < one.data + one.bytes)
      throw ConsistencyError("a pointer of the host's leads to device memory");
}

void Reach::count(int change) {
  const std::lock_guard lock(mutex_);
  const bool was = open_ != 0;
  open_ += change;
  if (was != (open_ != 0)) protect(open_ != 0 ? PROT_READ | PROT_WRITE : PROT_NONE);
}

void Reach::protect(int protection) noexcept {
  for (const Mapping& one : mappings_)
    if (mprotect(one.data, one.bytes, protection) != 0) std::abort();
}

}  // namespace foundry::test
