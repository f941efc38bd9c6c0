// The card: its memory, and one queue of work in the order of the calls, whatever the stream (the device has one).
#pragma once
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <vector>

#include "shadow/reach.h"

namespace software_cuda {

using Result = int;

class Card {
 public:
  static Card& the();

  /// Held by every call.
  std::recursive_mutex mutex;

  /// 0: none left.
  uint64_t allocate(uint64_t bytes, bool host);
  /// False: nothing begins there.
  bool free(uint64_t address, bool host);
  uint64_t free_bytes() const;
  /// From there to its allocation's end; 0: not in any.
  uint64_t length_at(uint64_t address) const;
  bool is_pinned(const void* data) const;

  /// Behind all before it. Returns its number.
  uint64_t enqueue(std::function<Result()> work);
  uint64_t enqueued() const { return enqueued_; }
  /// Up to and with this number. What has failed stays: the first report is every later one's.
  Result run_until(uint64_t number);
  Result failed() const { return failed_; }

 private:
  struct Block {
    uint64_t bytes;
    bool host;
  };
  struct Work {
    uint64_t number;
    std::function<Result()> run;
  };
  foundry::test::Reach reach_;
  std::map<uint64_t, Block> blocks_;
  uint64_t used_bytes_ = 0;  // of the card
  std::deque<Work> queue_;
  uint64_t enqueued_ = 0;
  Result failed_ = 0;
};

}  // namespace software_cuda
