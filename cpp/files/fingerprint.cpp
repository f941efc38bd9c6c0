// What tells a file from every other one: a hash of all its bytes. XXH64 of each chunk, on several threads, then of the
// hashes.
//
// It is made when somebody first asks, which is a save or a restore, and not beside packing: who saves nothing pays
// nothing. XXH64 does 6 GB/s on a core: of SmolLM2 (93 MB) 16 ms, which would be 3 to 6% of a load of 275 ms, and is
// once 16 ms beside a restore. The weights in use were read after the file was opened, so a file that was written to
// since then has no fingerprint. It is read through the descriptor and not through the mapping: nothing becomes
// resident, and what can't be read is an error.
#include "files/fingerprint.h"

#include <algorithm>
#include <exception>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/hash.h"
#include "base/lock_order.h"
#include "base/thread_pool.h"

namespace foundry {
namespace {

constexpr uint64_t kChunk = uint64_t{256} << 10;  // stays in a core's cache between reading and hashing
constexpr uint32_t kMostThreads = 8;              // more wait for memory
constexpr size_t kMostKnown = 256;                // files

/// read(offset, room) returns the bytes there, in `room` or where they lie.
template <class Read>
uint64_t hash_of(uint64_t size, const Read& read) {
  std::vector<uint64_t> hashes((size + kChunk - 1) / kChunk);
  const uint64_t threads = std::min<uint64_t>({default_threads(), kMostThreads, hashes.size()});
  std::vector<std::vector<std::byte>> rooms(threads, std::vector<std::byte>(kChunk));
  std::vector<std::exception_ptr> errors(threads);
  ThreadPool pool(static_cast<uint32_t>(threads));
  pool.parallel_for(hashes.size(), [&](uint64_t chunk, uint32_t thread) {
    if (errors[thread] != nullptr) return;
    try {
      const uint64_t at = chunk * kChunk;
      hashes[chunk] = hash64(read(at, std::span(rooms[thread]).first(std::min(kChunk, size - at))));
    } catch (...) {
      errors[thread] = std::current_exception();
    }
  });
  for (const std::exception_ptr& error : errors)
    if (error != nullptr) std::rethrow_exception(error);
  return hash64(std::as_bytes(std::span(hashes)), size);
}

void require_unchanged(const InputFile& file) {
  const FileIdentity now = file.identity_now(), then = file.opened();
  if (now.same_contents(then)) return;
  const auto told = [](const FileIdentity& f) {
    return std::to_string(f.size) + " bytes last written at " + std::to_string(f.mtime_ns) + " ns";
  };
  throw ModelFormatError(file.path() + ": was written to since it was loaded: expected " + told(then) + ", found " +
                         told(now) + "; load it again to save and restore histories");
}

struct Known {
  RankedMutex mutex{LockRank::fingerprints};
  std::map<FileIdentity, uint64_t> hashes;
};
/// Of files hashed by this process. A file that differs in anything its identity has is another one.
Known& known() {
  static Known all;
  return all;
}

}  // namespace

uint64_t fingerprint_of(std::span<const std::byte> bytes) {
  return hash_of(bytes.size(), [bytes](uint64_t at, std::span<std::byte> room) {
    return std::span<const std::byte>(bytes.subspan(at, room.size()));
  });
}

uint64_t fingerprint_of(const InputFile& file) {
  require_unchanged(file);
  const FileIdentity identity = file.identity_now();
  const std::lock_guard lock(known().mutex);
  auto& hashes = known().hashes;
  if (const auto found = hashes.find(identity); found != hashes.end()) return found->second;
  const uint64_t hash = hash_of(file.size(), [&file](uint64_t at, std::span<std::byte> room) {
    return std::span<const std::byte>(room.first(file.read(at, room)));
  });
  require_unchanged(file);
  if (hashes.size() >= kMostKnown) hashes.clear();
  hashes.emplace(identity, hash);
  return hash;
}

}  // namespace foundry
