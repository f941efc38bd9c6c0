// Steps under way on a GPU: the command buffers of each, how they end, and what that says of the queue that ran them.
// One thread submits, any may wait.
#pragma once
#import <Metal/Metal.h>

#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "base/lock_order.h"
#include "device/metal/memory.h"

namespace foundry {

class Steps {
 public:
  /// The command buffers of a step, committed, in order.
  using Parts = std::vector<id<MTLCommandBuffer>>;

  explicit Steps(std::shared_ptr<Residency> residency) : residency_(std::move(residency)) {}

  /// The step's number. Queues have numbers from 0 on: a new one comes after one that failed. No parts: nothing to run.
  uint64_t submitted(Parts parts, uint64_t queue);
  /// Throws what became of that step, where it failed.
  void wait(uint64_t step);
  /// For all so far, well or not: whoever wants a step's results is told by wait().
  void settle();
  /// After some errors a queue takes nothing more, so none is used again that had one.
  bool failed(uint64_t queue) const;

 private:
  struct Step {
    uint64_t number, queue;
    Parts parts;
  };
  struct Failure {
    id<MTLCommandBuffer> commands = nil;
    uint64_t from = 1, to = 0;  // steps
    bool again = false;         // on a new queue too, before anything had succeeded there
  };
  bool first_before(uint64_t step, Step& first) const;
  void wait_for_ends(uint64_t step);
  void ended(const Step& step);

  std::shared_ptr<Residency> residency_;
  mutable RankedMutex mutex_{LockRank::gpu_queue};
  std::deque<Step> under_way_;
  uint64_t submitted_ = 0;
  Failure failure_;
  uint64_t usable_ = 0;  // queues below have failed
  bool worked_ = true;   // some step has succeeded on that queue; the first one is trusted
};

}  // namespace foundry
