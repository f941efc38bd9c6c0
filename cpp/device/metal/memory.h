// Buffers of the GPU, resident as long as they live: kernels follow addresses in page tables, which Metal does not see. A buffer that
// goes while steps are under way stays until they have ended.
#pragma once
#import <Metal/Metal.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "base/lock_order.h"
#include "device/device.h"

namespace foundry {

/// The buffers that kernels may reach: one residency set of the queue (macOS 15), or useResources with each encoder.
/// Thread-safe: sessions open and close while a step runs.
class Residency {
 public:
  Residency(id<MTLDevice> device, id<MTLCommandQueue> queue);
  ~Residency();
  Residency(const Residency&) = delete;

  void add(id<MTLBuffer> buffer);
  /// Gone once the steps so far have ended.
  void retire(id<MTLBuffer> buffer);
  /// For the commands of this step, from its encoder's begin.
  void use(id<MTLComputeCommandEncoder> encoder);
  /// Before a step is committed: everything added is resident then.
  void commit(uint64_t step);
  /// The step that was being encoded is dropped.
  void abandon();
  /// Steps up to this one have ended.
  void ended(uint64_t step);

 private:
  struct Retired {
    uint64_t step;
    id<MTLBuffer> buffer;
  };
  void remove(id<MTLBuffer> buffer);
  void sweep();

  RankedMutex mutex_{LockRank::gpu_memory};
  id<MTLCommandQueue> queue_;
  id set_;  // MTLResidencySet, or nil
  bool changed_ = false;
  std::vector<id<MTLResource>> live_;
  std::vector<Retired> retired_;
  bool encoding_ = false;
  uint64_t submitted_ = 0, ended_ = 0;
};

class MetalBuffer final : public Buffer {
 public:
  /// `offset` bytes into the MTLBuffer, `bytes` long.
  MetalBuffer(std::shared_ptr<Residency> residency, id<MTLBuffer> buffer, uint64_t offset, uint64_t bytes,
              MemoryKind kind);
  ~MetalBuffer() override;
  MetalBuffer(const MetalBuffer&) = delete;

  std::byte* host() override { return kind_ == MemoryKind::shared ? contents_ : nullptr; }
  uint64_t address() const override { return address_; }
  uint64_t bytes() const override { return bytes_; }
  id<MTLBuffer> buffer() const { return buffer_; }
  uint64_t offset() const { return offset_; }
  std::byte* contents() const { return contents_; }  // of either kind: the memory is one

 private:
  std::shared_ptr<Residency> residency_;
  id<MTLBuffer> buffer_;
  uint64_t offset_, bytes_, address_;
  std::byte* contents_;
  MemoryKind kind_;
};

}  // namespace foundry
