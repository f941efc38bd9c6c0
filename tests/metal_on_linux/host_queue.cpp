// The kernels of metal/ on the host, as a device of the tests: "metal:host".
#include "metal_on_linux/host_queue.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <set>
#include <string>

#include "base/error.h"
#include "device/gpu/gpu_device.h"
#include "device/unified.h"
#include "metal_on_linux/host/runtime.h"

namespace foundry::metal_tests {
namespace {

/// On the heap, so that the address sanitizer knows its ends.
class HeapBuffer final : public Buffer {
 public:
  HeapBuffer(uint64_t bytes, MemoryKind kind)
      : data_(static_cast<std::byte*>(::operator new(bytes == 0 ? 1 : bytes, std::align_val_t{64}))),
        bytes_(bytes),
        kind_(kind) {}
  ~HeapBuffer() override { ::operator delete(data_, std::align_val_t{64}); }
  std::byte* host() override { return kind_ != MemoryKind::device ? data_ : nullptr; }
  uint64_t address() const override { return reinterpret_cast<uint64_t>(data_); }
  uint64_t bytes() const override { return bytes_; }

 private:
  std::byte* data_;
  uint64_t bytes_;
  MemoryKind kind_;
};

class MappedBuffer final : public Buffer {
 public:
  MappedBuffer(const std::byte* data, uint64_t bytes) : data_(const_cast<std::byte*>(data)), bytes_(bytes) {}
  std::byte* host() override { return nullptr; }
  uint64_t address() const override { return reinterpret_cast<uint64_t>(data_); }
  uint64_t bytes() const override { return bytes_; }

 private:
  std::byte* data_;
  uint64_t bytes_;
};

class HostQueue final : public Unified<KernelQueue> {
 public:
  HostQueue() {
    info_.name = "metal", info_.isa = "host";
    info_.max_tile_tokens = 1, info_.half_tiles = true;
  }
  const DeviceInfo& info() const override { return info_; }
  std::unique_ptr<Buffer> allocate(uint64_t bytes, MemoryKind kind) override {
    return std::make_unique<HeapBuffer>(bytes, kind);
  }
  uint64_t copied_bytes(uint64_t, uint64_t) const override { return 0; }
  std::unique_ptr<Buffer> wrap(const std::byte* data, uint64_t n) override {
    return std::make_unique<MappedBuffer>(data, n);
  }
  void dispatch(const Dispatch& one) override {
    metal_host::Launch launch;
    launch.grid = {one.grid.x, one.grid.y, one.grid.z};
    launch.threads = {one.threads, 1, 1};
    launch.constants = one.constants;
    launch.seed = schedule == 0 ? 0 : schedule * 1'000'003 + launches;
    ++launches;
    for (uint32_t i = 0; i < one.n_slots; ++i) {
      const Dispatch::Slot& slot = one.slots[i];
      launch.buffers[i] = slot.buffer == nullptr ? const_cast<void*>(slot.bytes)
                                                 : reinterpret_cast<void*>(slot.buffer->address() + slot.offset);
      launch.lengths[i] = slot.buffer == nullptr ? slot.n_bytes : slot.buffer->bytes() - slot.offset;
    }
    seen.insert(one.kernel.data());
    metal_host::run(launch, one.kernel.data());
  }
  uint64_t submit() override { return 0; }
  void wait(uint64_t) override {}

 private:
  DeviceInfo info_;
};

std::unique_ptr<Device> make(const DeviceOptions&) { return make_gpu_device(std::make_unique<HostQueue>()); }

}  // namespace

void register_host_device() { register_device("metal:host", make); }

}  // namespace foundry::metal_tests
