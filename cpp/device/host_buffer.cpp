#include "device/host_buffer.h"

#include <sys/mman.h>

#include <string>

#include "base/error.h"

namespace foundry {
namespace {

class HostBuffer final : public Buffer {
 public:
  HostBuffer(uint64_t bytes, MemoryKind kind) : bytes_(bytes), kind_(kind) {
    if (bytes == 0) return;
    void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED) throw MemoryLimitError("the system refused " + std::to_string(bytes) + " bytes", bytes, 0);
    data_ = static_cast<std::byte*>(data);
  }
  ~HostBuffer() override {
    if (data_ != nullptr) munmap(data_, bytes_);
  }
  std::byte* host() override { return kind_ == MemoryKind::shared ? data_ : nullptr; }
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
