#include "device/cuda/memory.h"

#include <algorithm>

namespace foundry::cuda {

class OwnBuffer final : public Buffer {
 public:
  OwnBuffer(std::shared_ptr<Memory> memory, Address address, Memory::Places places, uint64_t bytes)
      : places(places), memory_(std::move(memory)), address_(address), bytes_(bytes) {}
  ~OwnBuffer() override { memory_->retire(*this); }
  OwnBuffer(const OwnBuffer&) = delete;
  std::byte* host() override { return static_cast<std::byte*>(places.host); }
  uint64_t address() const override { return address_; }
  uint64_t bytes() const override { return bytes_; }
  void wrote(uint64_t offset, uint64_t n) override {
    if (n != 0 && places.card != 0 && places.host != nullptr) memory_->wrote(*this, offset, n);
  }

  const Memory::Places places;

 private:
  const std::shared_ptr<Memory> memory_;
  Address address_;
  uint64_t bytes_;
};

Memory::~Memory() {
  for (const Retired& one : retired_) free(one.places);
}

std::unique_ptr<Buffer> Memory::allocate(uint64_t bytes, MemoryKind kind) {
  const Gpu::Current current(*gpu_);
  gpu_->check_alive();
  const uint64_t length = std::max<uint64_t>(bytes, 1);
  const Driver& driver = gpu_->driver();
  Places places;
  try {
    Address address = 0;
    if (kind != MemoryKind::device)
      gpu_->check(driver.allocate_host(&places.host, length, kPortable | kDeviceMapped), "memory that the card maps",
                  length);
    if (kind == MemoryKind::shared) {
      gpu_->check(driver.host_address(&address, places.host, 0), "memory that the card maps", length);
    } else {
      gpu_->check(driver.allocate(&places.card, length), "memory of the card", length);
      address = places.card;
    }
    const std::lock_guard lock(mutex_);
    retired_.reserve(retired_.size() + live_ + 1);
    written_.reserve(live_ + 1);
    auto made = std::make_unique<OwnBuffer>(shared_from_this(), address, places, bytes);
    ++live_;
    return made;
  } catch (...) {
    free(places);
    throw;
  }
}

void Memory::wrote(const OwnBuffer& buffer, uint64_t offset, uint64_t n) {
  const std::lock_guard lock(mutex_);
  for (Written& one : written_) {
    if (one.buffer != &buffer) continue;
    one.from = std::min(one.from, offset), one.to = std::max(one.to, offset + n);
    return;
  }
  written_.push_back({&buffer, offset, offset + n});
}

void Memory::mirror(Stream stream) {
  const std::lock_guard lock(mutex_);
  while (!written_.empty()) {
    const Written one = written_.back();
    const Places& places = one.buffer->places;
    gpu_->check(gpu_->driver().upload(places.card + one.from, static_cast<const std::byte*>(places.host) + one.from,
                                      one.to - one.from, stream),
                "what the host has written", one.to - one.from);
    written_.pop_back();
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

void Memory::retire(const OwnBuffer& buffer) {
  const std::lock_guard lock(mutex_);
  std::erase_if(written_, [&](const Written& one) { return one.buffer == &buffer; });
  retired_.push_back({submitted_ + (encoding_ ? 1 : 0), buffer.places});
  --live_;
  sweep();
}

void Memory::sweep() {
  std::erase_if(retired_, [this](const Retired& one) {
    if (one.step > ended_ && one.step > 0) return false;
    free(one.places);
    return true;
  });
}

/// What the driver says is nobody's affair here: a lost context has nothing left to free.
void Memory::free(const Places& places) {
  const Gpu::Current current(*gpu_);
  if (places.host != nullptr) gpu_->driver().free_host(places.host);
  if (places.card != 0) gpu_->driver().free(places.card);
}

}  // namespace foundry::cuda
