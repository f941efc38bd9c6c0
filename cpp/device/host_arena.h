// Pieces of host memory that lie side by side in a few large chunks. Most weights are smaller than a huge page or end
// in the middle of one: alone, they would lie in small pages; together, nearly all of them lie in huge ones.
#pragma once
#include <memory>
#include <vector>

#include "device/memory.h"

namespace foundry {

/// Chunks are as large as all before them together, between one huge page and kMostChunkBytes, or as one piece needs.
/// Of a chunk no more is resident than was written to, in whole huge pages where the system gives them.
/// A piece that goes gives its whole pages back to the system at once, and its room to later pieces.
///
/// allocate() is for one thread at a time. Pieces may go in any thread, and outlive the arena.
class HostArena {
 public:
  static constexpr uint64_t kMostChunkBytes = uint64_t{1} << 30;

  /// `device` memory, at least one byte of it, aligned to a page. Throws MemoryLimitError when the system refuses.
  std::unique_ptr<Buffer> allocate(uint64_t bytes);

 private:
  class Chunk;
  class Piece;
  std::vector<std::shared_ptr<Chunk>> chunks_;
  uint64_t chunk_bytes_ = 0;
};

}  // namespace foundry
