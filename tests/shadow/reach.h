// Memory that is open while somebody holds it open, and else out of reach.
#pragma once
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <span>
#include <vector>

namespace foundry::test {

class Reach {
 public:
  struct Mapping {
    std::byte* data;
    uint64_t bytes;
  };
  /// Everything is open to reads and writes as long as it lives.
  class Open {
   public:
    explicit Open(Reach& of) : of_(of) { of_.count(1); }
    ~Open() { of_.count(-1); }
    Open(const Open&) = delete;

   private:
    Reach& of_;
  };

  Reach() = default;
  ~Reach();
  Reach(const Reach&) = delete;

  /// Whole pages of the system's; MemoryLimitError.
  Mapping map(uint64_t bytes);
  void unmap(const Mapping& mapping) noexcept;
  /// ConsistencyError where a pointer that should be the host's leads to this memory.
  void check_outside(std::span<const std::byte> bytes) const;

 private:
  void count(int change);
  int protection() const;
  void protect() noexcept;

  mutable std::mutex mutex_;
  int open_ = 0;
  std::vector<Mapping> mappings_;  // in the order of their addresses
  // All lie in one region, so that a step costs two calls of the system and not two for each buffer.
  std::byte* region_ = nullptr;
  uint64_t used_bytes_ = 0;  // of the region: all beyond is free, and as it was made
};

}  // namespace foundry::test
