// Buffers of the card, of the host where the card maps it, and of both. One that goes while steps are under way stays
// until they have ended: the driver would wait for them.
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

  /// MemoryLimitError. `mirrored` memory is pinned memory of the host and as much of the card's.
  std::unique_ptr<Buffer> allocate(uint64_t bytes, MemoryKind kind);

  /// What the host has written to `mirrored` memory goes to the card, in the stream's order.
  void mirror(Stream stream);

  /// A step is being encoded: what goes from now on may be read by it.
  void encoding();
  void submitted(uint64_t step);
  /// Steps up to this one have ended.
  void ended(uint64_t step);
  /// What was encoded and not submitted has ended.
  void abandoned() noexcept;

 private:
  friend class OwnBuffer;
  struct Places {
    Address card = 0;      // memory of the card, or none
    void* host = nullptr;  // pinned memory, or none
  };
  struct Retired {
    uint64_t step;
    Places places;
  };
  /// Bytes that the host has written and the card has not.
  struct Written {
    const class OwnBuffer* buffer;
    uint64_t from, to;
  };
  void retire(const OwnBuffer& buffer);
  void wrote(const OwnBuffer& buffer, uint64_t offset, uint64_t n);
  void sweep();
  void free(const Places& places);

  const std::shared_ptr<Gpu> gpu_;
  RankedMutex mutex_{LockRank::gpu_memory};
  std::vector<Retired> retired_;  // with room for all that live, so that none fails to go
  std::vector<Written> written_;  // the same
  uint64_t live_ = 0;
  bool encoding_ = false;
  uint64_t submitted_ = 0, ended_ = 0;
};

}  // namespace foundry::cuda
