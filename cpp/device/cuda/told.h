// What launches are told by pointer (sequences, turns of a rope, how to sample), where kernels can read it fast:
// copied into the card's memory as the step is submitted, from pinned memory that stays as it is until the step has
// ended. A step that is told as much as the one before has it at the same addresses.
#pragma once
#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "device/cuda/memory.h"
#include "device/cuda/steps.h"

namespace foundry::cuda {

class Told {
 public:
  Told(std::shared_ptr<Gpu> gpu, std::shared_ptr<Memory> memory) : gpu_(std::move(gpu)), memory_(std::move(memory)) {}

  /// The address where launches see these bytes. What a step was told already is not kept again.
  Address tell(const void* data, uint64_t bytes);
  /// All that the step was told, in the stream's order.
  void send(Stream stream);
  /// The step is over: the next one begins with all the room there is.
  void submitted(uint64_t step, uint64_t ended);
  /// The step is given up, and what was launched of it has ended.
  void dropped() noexcept;

 private:
  struct Entry {
    const void* data;
    uint64_t bytes, offset;
    size_t chunk;
  };
  struct Used {
    uint64_t step;
    std::unique_ptr<Buffer> host;
  };
  std::unique_ptr<Buffer> room();

  const std::shared_ptr<Gpu> gpu_;
  const std::shared_ptr<Memory> memory_;
  std::vector<std::unique_ptr<Buffer>> device_;  // chunks: the stream's order makes one set enough for all steps
  std::vector<std::unique_ptr<Buffer>> host_;    // of this step, beside them
  std::deque<Used> used_;                        // of steps under way
  std::vector<std::unique_ptr<Buffer>> free_;
  std::vector<Entry> entries_;
  uint64_t offset_ = 0;  // in the last chunk of this step
};

}  // namespace foundry::cuda
