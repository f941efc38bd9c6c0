#include "device/cuda/cuda_queue.h"

#include <cuda_runtime_api.h>

#include <array>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "device/cuda/launch.h"
#include "device/gpu/gpu_device.h"

namespace foundry {
namespace {

void check(cudaError_t status, const char* what) {
  if (status != cudaSuccess) throw ConsistencyError(std::string("cuda: ") + what + ": " + cudaGetErrorString(status));
}

/// Memory of the GPU's own: `device`.
class GpuBuffer final : public Buffer {
 public:
  explicit GpuBuffer(uint64_t bytes) : bytes_(bytes) {
    if (cudaMalloc(&data_, bytes == 0 ? 1 : bytes) == cudaSuccess) return;
    size_t available = 0, total = 0;
    if (cudaMemGetInfo(&available, &total) != cudaSuccess) available = 0;
    throw MemoryLimitError(
        "cuda: needed " + std::to_string(bytes) + " bytes of the GPU's memory, available " + std::to_string(available),
        bytes, available);
  }
  ~GpuBuffer() override { cudaFree(data_); }  // once the steps under way have ended
  GpuBuffer(const GpuBuffer&) = delete;
  std::byte* host() override { return nullptr; }
  uint64_t address() const override { return reinterpret_cast<uint64_t>(data_); }
  uint64_t bytes() const override { return bytes_; }

 private:
  void* data_ = nullptr;
  uint64_t bytes_;
};

/// The host's, which the GPU maps at the same address: `shared`.
class PinnedBuffer final : public Buffer {
 public:
  explicit PinnedBuffer(uint64_t bytes) : bytes_(bytes) {
    if (cudaHostAlloc(&data_, bytes == 0 ? 1 : bytes, cudaHostAllocMapped) != cudaSuccess)
      throw MemoryLimitError("cuda: needed " + std::to_string(bytes) + " bytes of mapped memory, available less", bytes,
                             0);
  }
  ~PinnedBuffer() override { cudaFreeHost(data_); }
  PinnedBuffer(const PinnedBuffer&) = delete;
  std::byte* host() override { return static_cast<std::byte*>(data_); }
  uint64_t address() const override { return reinterpret_cast<uint64_t>(data_); }
  uint64_t bytes() const override { return bytes_; }

 private:
  void* data_ = nullptr;
  uint64_t bytes_;
};

class CudaQueue final : public KernelQueue {
 public:
  CudaQueue() {
    int count = 0;
    if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0)
      throw ValueError("device: expected an NVIDIA GPU for cuda, found none");
    cudaDeviceProp properties{};
    check(cudaGetDeviceProperties(&properties, 0), "properties");
    info_.name = "cuda", info_.isa = "sm_" + std::to_string(properties.major) + std::to_string(properties.minor);
    info_.max_tile_tokens = 1, info_.half_tiles = true;
  }
  const DeviceInfo& info() const override { return info_; }
  bool few_registers() const override { return false; }
  std::unique_ptr<Buffer> allocate(uint64_t bytes, MemoryKind kind) override {
    if (kind == MemoryKind::shared) return std::make_unique<PinnedBuffer>(bytes);
    return std::make_unique<GpuBuffer>(bytes);
  }
  bool unified() const override { return false; }
  std::byte* window(const Span&, const Span& room) override {
    settle();
    return room.host<std::byte>();
  }
  void upload(const Span& to, std::span<const std::byte> from) override {
    settle();
    move(address(to), from.data(), from.size(), cudaMemcpyHostToDevice, "upload");
    check(cudaStreamSynchronize(kStream), "upload");  // the host may change its bytes then
  }
  void download(const Span& from, std::span<std::byte> to) override {
    settle();
    move(to.data(), address(from), to.size(), cudaMemcpyDeviceToHost, "download");
    check(cudaStreamSynchronize(kStream), "download");
  }
  void copy(const Span& from, const Span& to, uint64_t bytes) override {
    settle();
    move(address(to), address(from), bytes, cudaMemcpyDeviceToDevice, "copy");
  }
  uint64_t copied_bytes(uint64_t, uint64_t n) const override { return n; }
  std::unique_ptr<Buffer> wrap(const std::byte* data, uint64_t n) override {
    auto buffer = std::make_unique<GpuBuffer>(n);
    upload({buffer.get(), 0}, {data, n});
    return buffer;
  }
  void dispatch(const Dispatch& one) override {
    std::array<void*, kMostSlots> buffers{};
    std::array<const void*, kMostSlots> bytes{};
    std::array<uint32_t, kMostSlots> n_bytes{};
    for (uint32_t i = 0; i < one.n_slots; ++i) {
      const Dispatch::Slot& slot = one.slots[i];
      if (slot.buffer != nullptr) {
        buffers[i] = reinterpret_cast<void*>(slot.buffer->address() + slot.offset);
        continue;
      }
      bytes[i] = slot.bytes, n_bytes[i] = static_cast<uint32_t>(slot.n_bytes);
      buffers[i] = keep(slot.bytes, slot.n_bytes);
    }
    const int status =
        foundry_cuda_launch(one.kernel.data(), one.grid.x, one.grid.y, one.grid.z, one.threads, buffers.data(),
                            bytes.data(), n_bytes.data(), one.n_slots, one.constants, kStream);
    if (status == -1) throw ConsistencyError(std::string("cuda: no kernel ") + one.kernel.data());
    check(static_cast<cudaError_t>(status), one.kernel.data());
  }
  uint64_t submit() override { return 0; }
  void wait(uint64_t) override {
    check(cudaStreamSynchronize(kStream), "a step");
    kept_.clear();
  }

 private:
  static constexpr cudaStream_t kStream = nullptr;  // one order for all: launches, copies and constants

  static void* address(const Span& of) { return of.as<void*>(); }
  static void move(void* to, const void* from, uint64_t n, cudaMemcpyKind kind, const char* what) {
    if (n != 0) check(cudaMemcpyAsync(to, from, n, kind, kStream), what);
  }
  /// Steps have ended, well or not: whoever wanted the results of one that failed is told by wait().
  static void settle() noexcept { static_cast<void>(cudaStreamSynchronize(kStream)); }
  /// Parameters where the GPU can read them until the step has ended.
  void* keep(const void* data, uint64_t n) {
    kept_.push_back(std::make_unique<PinnedBuffer>(n));
    std::memcpy(kept_.back()->host(), data, n);
    return kept_.back()->host();
  }

  DeviceInfo info_;
  std::vector<std::unique_ptr<PinnedBuffer>> kept_;
};

}  // namespace

std::unique_ptr<Device> make_cuda_device(const DeviceOptions&) {
  return make_gpu_device(std::make_unique<CudaQueue>());
}

}  // namespace foundry
