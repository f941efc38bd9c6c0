#include "device/host_arena.h"

#include <sys/mman.h>

#include <algorithm>
#include <mutex>
#include <optional>

#include "base/checked.h"
#include "base/error.h"
#include "base/lock_order.h"
#include "base/system_page.h"
#include "device/host_buffer.h"

namespace foundry {

/// A buffer and what of it is free: ranges in ascending order, no two of which touch.
class HostArena::Chunk {
 public:
  explicit Chunk(uint64_t bytes) : memory_(make_host_buffer(bytes, MemoryKind::device)) {
    free_.reserve(2);
    free_.push_back({0, bytes});
  }
  uint64_t address() const { return memory_->address(); }

  /// The first place with so much room, or none.
  std::optional<uint64_t> take(uint64_t bytes) {
    const std::lock_guard lock(mutex_);
    free_.reserve(pieces_ + 2);  // so that give_back() never needs memory: n pieces have at most n + 1 gaps
    for (auto range = free_.begin(); range != free_.end(); ++range) {
      if (range->end - range->begin < bytes) continue;
      const uint64_t at = range->begin;
      range->begin += bytes;
      if (range->begin == range->end) free_.erase(range);
      ++pieces_;
      return at;
    }
    return std::nullopt;
  }

  void give_back(uint64_t at, uint64_t bytes) noexcept {
    // What it held is no longer wanted: the next reader of these pages finds zeros.
    madvise(reinterpret_cast<void*>(address() + at), bytes, MADV_DONTNEED);
    const std::lock_guard lock(mutex_);
    --pieces_;
    auto next = std::find_if(free_.begin(), free_.end(), [&](const Range& range) { return range.begin > at; });
    if (next != free_.end() && next->begin == at + bytes) {
      next->begin = at;
    } else {
      next = free_.insert(next, {at, at + bytes});
    }
    if (next == free_.begin() || (next - 1)->end != at) return;
    (next - 1)->end = next->end;
    free_.erase(next);
  }

 private:
  struct Range {
    uint64_t begin, end;
  };
  std::unique_ptr<Buffer> memory_;
  RankedMutex mutex_{LockRank::arena};
  std::vector<Range> free_;
  uint64_t pieces_ = 0;
};

class HostArena::Piece final : public Buffer {
 public:
  Piece(std::shared_ptr<Chunk> chunk, uint64_t at, uint64_t bytes, uint64_t held)
      : chunk_(std::move(chunk)), at_(at), bytes_(bytes), held_(held) {}
  ~Piece() override { chunk_->give_back(at_, held_); }
  std::byte* host() override { return nullptr; }
  uint64_t address() const override { return chunk_->address() + at_; }
  uint64_t bytes() const override { return bytes_; }

 private:
  std::shared_ptr<Chunk> chunk_;
  uint64_t at_, bytes_, held_;
};

std::unique_ptr<Buffer> HostArena::allocate(uint64_t bytes) {
  const uint64_t held = round_up(bytes, system_page());
  if (held < bytes) throw MemoryLimitError("the system refused " + std::to_string(bytes) + " bytes", bytes, 0);
  const auto piece_of = [&](const std::shared_ptr<Chunk>& chunk) -> std::unique_ptr<Buffer> {
    const auto at = chunk->take(held);
    if (!at) return nullptr;
    try {
      return std::make_unique<Piece>(chunk, *at, bytes, held);
    } catch (...) {
      chunk->give_back(*at, held);
      throw;
    }
  };
  for (const auto& chunk : chunks_)
    if (auto piece = piece_of(chunk)) return piece;
  chunks_.reserve(chunks_.size() + 1);
  const uint64_t wanted = std::max(held, std::clamp(chunk_bytes_, kHugePageBytes, kMostChunkBytes));
  std::shared_ptr<Chunk> chunk;
  uint64_t size = wanted;
  try {
    chunk = std::make_shared<Chunk>(size);
  } catch (const MemoryLimitError&) {  // where a chunk is too much, one piece may not be
    if (held == wanted) throw;
    chunk = std::make_shared<Chunk>(size = held);
  }
  auto piece = piece_of(chunk);
  chunks_.push_back(std::move(chunk));
  chunk_bytes_ += size;
  return piece;
}

}  // namespace foundry
