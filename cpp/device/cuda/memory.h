// Buffers of the card, and of the host where the card maps it. One that goes while steps are under way stays until
// they have ended: the driver would wait for them.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "base/lock_order.h"
#include "device/cuda/gpu.h"
#include "device/memory.h"

namespace foundry::cuda {

/// Whose steps may read what buffers. Thread-safe: sessions open and close while a step runs.
class Memory : public std::enable_shared_from_this<Memory> {
 public:
  explicit Memory(std::shared_ptr<Gpu> gpu) : gpu_(std::move(gpu)) {}
  ~Memory();
  Memory(const Memory&) = delete;

  /// MemoryLimitError.
  std::unique_ptr<Buffer> allocate(uint64_t bytes, MemoryKind kind);

  /// A step is being encoded: what goes from now on may be read by it.
  void encoding();
  void submitted(uint64_t step);
  /// Steps up to this one have ended.
  void ended(uint64_t step);
  /// What was encoded and not submitted has ended.
  void abandoned() noexcept;

 private:
  friend class OwnBuffer;
  struct Retired {
    uint64_t step;
    Address address;
    void* host;  // of `shared` memory, or null
  };
  void retire(Address address, void* host);
  void sweep();
  void free(const Retired& one);

  const std::shared_ptr<Gpu> gpu_;
  RankedMutex mutex_{LockRank::gpu_memory};
  std::vector<Retired> retired_;  // with room for all that live, so that none fails to go
  uint64_t live_ = 0;
  bool encoding_ = false;
  uint64_t submitted_ = 0, ended_ = 0;
};

}  // namespace foundry::cuda
