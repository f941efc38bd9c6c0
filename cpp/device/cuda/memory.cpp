#include "device/cuda/memory.h"

#include <algorithm>

namespace foundry::cuda {

class OwnBuffer final : public Buffer {
 public:
  OwnBuffer(std::shared_ptr<Memory> memory, Address address, void* host, uint64_t bytes)
      : memory_(std::move(memory)), address_(address), host_(host), bytes_(bytes) {}
  ~OwnBuffer() override { memory_->retire(address_, host_); }
  OwnBuffer(const OwnBuffer&) = delete;
  std::byte* host() override { return static_cast<std::byte*>(host_); }
  uint64_t address() const override { return address_; }
  uint64_t bytes() const override { return bytes_; }

 private:
  const std::shared_ptr<Memory> memory_;
  Address address_;
  void* host_;
  uint64_t bytes_;
};

Memory::~Memory() {
  for (const Retired& one : retired_) free(one);
}

std::unique_ptr<Buffer> Memory::allocate(uint64_t bytes, MemoryKind kind) {
  const Gpu::Current current(*gpu_);
  gpu_->check_alive();
  const uint64_t length = std::max<uint64_t>(bytes, 1);
  const Driver& driver = gpu_->driver();
  Address address = 0;
  void* host = nullptr;
  if (kind == MemoryKind::device) {
    gpu_->check(driver.allocate(&address, length), "memory of the card", length);
  } else {
    gpu_->check(driver.allocate_host(&host, length, kPortable | kDeviceMapped), "memory that the card maps", length);
    if (const Result result = driver.host_address(&address, host, 0); result != kSuccess) {
      driver.free_host(host);
      gpu_->check(result, "memory that the card maps", length);
    }
  }
  try {
    const std::lock_guard lock(mutex_);
    retired_.reserve(retired_.size() + live_ + 1);
    auto made = std::make_unique<OwnBuffer>(shared_from_this(), address, host, bytes);
    ++live_;
    return made;
  } catch (...) {
    free({0, address, host});
    throw;
  }
}

void Memory::encoding() {
  const std::lock_guard lock(mutex_);
  encoding_ = true;
}

void Memory::submitted(uint64_t step) {
  const std::lock_guard lock(mutex_);
  encoding_ = false;
  submitted_ = step;
}

void Memory::ended(uint64_t step) {
  const std::lock_guard lock(mutex_);
  ended_ = std::max(ended_, step);
  sweep();
}

void Memory::abandoned() noexcept {
  const std::lock_guard lock(mutex_);
  encoding_ = false;
  sweep();
}

void Memory::retire(Address address, void* host) {
  const std::lock_guard lock(mutex_);
  retired_.push_back({submitted_ + (encoding_ ? 1 : 0), address, host});
  --live_;
  sweep();
}

void Memory::sweep() {
  std::erase_if(retired_, [this](const Retired& one) {
    if (one.step > ended_ && one.step > 0) return false;
    free(one);
    return true;
  });
}

/// What the driver says is nobody's affair here: a lost context has nothing left to free.
void Memory::free(const Retired& one) {
  const Gpu::Current current(*gpu_);
  if (one.host != nullptr)
    gpu_->driver().free_host(one.host);
  else
    gpu_->driver().free(one.address);
}

}  // namespace foundry::cuda
