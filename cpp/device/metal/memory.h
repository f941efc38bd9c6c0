// Buffers of the GPU, resident as long as they live: kernels follow addresses in page tables, which Metal does not see.
// A buffer that goes while steps are under way stays until they have ended.
#pragma once
#import <Metal/Metal.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "base/lock_order.h"
#include "device/device.h"
#include "device/metal/keep_alive.h"
#include "device/metal/newer_metal.h"

namespace foundry {

/// The buffers that kernels may reach: one residency set of the queue where the system has such (macOS 15) and gives
/// one, else useResources with each encoder. A set is asked for again twice a second, until some minutes after the last
/// step: macOS may have let go of memory that was idle for a second, and the next step would wait for it. Thread-safe:
/// sessions open and close while a step runs.
class Residency {
 public:
  explicit Residency(id<MTLDevice> device);
  ~Residency();
  Residency(const Residency&) = delete;

  /// For this queue, and no longer for the one before.
  void serve(id<MTLCommandQueue> queue);
  /// `written`: kernels write to it, too.
  void add(id<MTLBuffer> buffer, bool written);
  /// Gone once the steps so far have ended.
  void retire(id<MTLBuffer> buffer);
  /// For the commands of this step, from its encoder's begin.
  void use(id<MTLComputeCommandEncoder> encoder);
  /// Before a command buffer is committed: everything added is resident then, and the system has been asked to have it
  /// so now.
  void commit();
  void submitted(uint64_t step);
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
  void publish();
  void sweep();

  RankedMutex mutex_{LockRank::gpu_memory};
  id<MTLCommandQueue> queue_;
  id<FoundryMTLResidencySet> set_;  // or nil
  bool added_ = false;              // since the last commit()
  std::vector<id<MTLResource>> read_, written_;
  std::vector<Retired> retired_;
  bool encoding_ = false;
  uint64_t submitted_ = 0, ended_ = 0;
  KeepAlive keep_alive_;
};

class MetalBuffer final : public Buffer {
 public:
  /// `offset` bytes into the MTLBuffer, `bytes` long; `written`: by kernels.
  MetalBuffer(std::shared_ptr<Residency> residency, id<MTLBuffer> buffer, uint64_t offset, uint64_t bytes,
              MemoryKind kind, bool written);
  ~MetalBuffer() override;
  MetalBuffer(const MetalBuffer&) = delete;

  std::byte* host() override { return kind_ != MemoryKind::device ? contents_ : nullptr; }
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
