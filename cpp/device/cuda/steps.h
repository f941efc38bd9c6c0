// Steps under way on a GPU: an event behind each, in one stream. One thread submits, any may wait.
#pragma once
#include <cstdint>
#include <deque>
#include <exception>
#include <memory>

#include "base/lock_order.h"
#include "device/cuda/gpu.h"
#include "device/cuda/memory.h"

namespace foundry::cuda {

class Steps {
 public:
  Steps(std::shared_ptr<Gpu> gpu, std::shared_ptr<Memory> memory) : gpu_(std::move(gpu)), memory_(std::move(memory)) {}

  /// What is in the stream so far is a step. Its number.
  uint64_t submit(Stream stream);
  /// Throws what became of that step, where it failed.
  void wait(uint64_t step);
  /// For all so far, well or not: whoever wants a step's results is told by wait().
  void settle() noexcept;
  uint64_t ended() const;

 private:
  struct Step {
    uint64_t number = 0;
    std::shared_ptr<Event> event;
  };
  bool first_before(uint64_t step, Step& first) const;
  void wait_for_ends(uint64_t step);
  void end(const Step& step, std::exception_ptr failure);

  const std::shared_ptr<Gpu> gpu_;
  const std::shared_ptr<Memory> memory_;
  mutable RankedMutex mutex_{LockRank::gpu_queue};
  std::deque<Step> under_way_;
  uint64_t submitted_ = 0, ended_ = 0;
  std::exception_ptr failure_;
  uint64_t failed_from_ = 1, failed_to_ = 0;  // steps
};

}  // namespace foundry::cuda
