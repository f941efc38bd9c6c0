#include "device/host_buffer.h"

#include <sys/mman.h>

#include <string>

#include "base/checked.h"
#include "base/error.h"
#include "base/system_page.h"

namespace foundry {
namespace {

/// Aligned to kHugePageBytes where it is as long: what was mapped too much on either side is given back. Null where the
/// system refuses.
std::byte* map(uint64_t bytes) {
  const uint64_t slack = bytes < kHugePageBytes ? 0 : kHugePageBytes, mapped = bytes + slack;
  if (mapped < bytes) return nullptr;
  void* data = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) return nullptr;
  auto* from = static_cast<std::byte*>(data);
  if (slack == 0) return from;
  const auto address = reinterpret_cast<uint64_t>(data);
  const uint64_t before = round_up(address, kHugePageBytes) - address;
  const uint64_t used = before + round_up(bytes, system_page());
  if (before != 0) munmap(from, before);
  if (used < mapped) munmap(from + used, mapped - used);
  from += before;
#ifdef MADV_HUGEPAGE
  // Advice alone: where the system has no such pages, or has them switched off, nothing changes.
  madvise(from, bytes / kHugePageBytes * kHugePageBytes, MADV_HUGEPAGE);
#endif
  return from;
}

class HostBuffer final : public Buffer {
 public:
  HostBuffer(uint64_t bytes, MemoryKind kind) : bytes_(bytes), kind_(kind) {
    if (bytes == 0) return;
    data_ = map(bytes);
    if (data_ == nullptr) throw MemoryLimitError("the system refused " + std::to_string(bytes) + " bytes", bytes, 0);
  }
  ~HostBuffer() override {
    if (data_ != nullptr) munmap(data_, bytes_);
  }
  std::byte* host() override { return kind_ != MemoryKind::device ? data_ : nullptr; }
  uint64_t address() const override { return reinterpret_cast<uint64_t>(data_); }
  uint64_t bytes() const override { return bytes_; }

 private:
  std::byte* data_ = nullptr;
  uint64_t bytes_;
  MemoryKind kind_;
};

}  // namespace

std::unique_ptr<Buffer> make_host_buffer(uint64_t bytes, MemoryKind kind) {
  return std::make_unique<HostBuffer>(bytes, kind);
}

}  // namespace foundry
