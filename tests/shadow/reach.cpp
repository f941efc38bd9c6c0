#include "shadow/reach.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <string>

#include "base/error.h"

namespace foundry::test {
namespace {

constexpr uint64_t kRegionBytes = uint64_t{64} << 30;  // of addresses: the system has pages where they are touched

std::byte* reserve(uint64_t bytes) {
  void* data = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data == MAP_FAILED) throw MemoryLimitError("the system refused " + std::to_string(bytes) + " bytes", bytes, 0);
  return static_cast<std::byte*>(data);
}

}  // namespace

Reach::~Reach() {
  if (region_ != nullptr) munmap(region_, kRegionBytes);
}

int Reach::protection() const { return open_ != 0 ? PROT_READ | PROT_WRITE : PROT_NONE; }

Reach::Mapping Reach::map(uint64_t bytes) {
  const auto page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  const uint64_t length = std::max<uint64_t>(1, (bytes + page - 1) / page) * page;
  const std::lock_guard lock(mutex_);
  mappings_.reserve(mappings_.size() + 1);
  if (region_ == nullptr) region_ = reserve(kRegionBytes);
  auto before = mappings_.begin();
  std::byte* at = region_;
  while (before != mappings_.end() && before->data < at + length) at = before->data + before->bytes, ++before;
  const uint64_t end = static_cast<uint64_t>(at - region_) + length;
  if (end > kRegionBytes) throw MemoryLimitError("the shadow has no room for " + std::to_string(length), length, 0);
  if (end > used_bytes_) {
    used_bytes_ = end;
    protect();
  }
  return *mappings_.insert(before, {at, length});
}

void Reach::unmap(const Mapping& mapping) noexcept {
  const std::lock_guard lock(mutex_);
  std::erase_if(mappings_, [&](const Mapping& one) { return one.data == mapping.data; });
  madvise(mapping.data, mapping.bytes, MADV_DONTNEED);
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
  if (was != (open_ != 0)) protect();
}

void Reach::protect() noexcept {
  if (used_bytes_ != 0 && mprotect(region_, used_bytes_, protection()) != 0) std::abort();
}

}  // namespace foundry::test
