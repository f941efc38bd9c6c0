// A saved history as bytes, version 4. Everything is little endian; the header ends with its own checksum.
//   "FNDRYKV4"
//   u64 header bytes (a multiple of kImageAlign: the pages begin there), u64 fingerprint of the model
//   u32 length and bytes of the device's name, u32 tokens, u32 groups
//   a group: u32 layers, KV heads, head_dim, window, page_tokens, tile_tokens, K type, V type; u64 page bytes; u32 first page,
//   pages: those before the first one a window has passed
//   of models with recurrent layers: u32 layers, u64 bytes of a state, u32 states, u32 position of each, ascending; u8 of
//   each, 1 where a turn ended behind it (of whole pages alone), else 0
//   i32 each token; u64 each page's checksum, group after group, and each state's; zeros; u64 checksum of all before
//   the pages, group after group; the states
// Versions 1 and 2 had another fingerprint, of samples of the weights, then of the graph as it was fused; version 3 did
// not say where turns ended. They are refused: what they hold is computed anew.
//
// A file's checksums say that it is what somebody wrote, not that he wrote sense. So no figure of it is ever used: each
// is compared with what the model at hand would have written there, and that is used.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "kv/kv.h"

namespace foundry {

inline constexpr uint64_t kImageAlign = 16384;  // the largest page of the systems there are
inline constexpr uint64_t kImagePrefix =
    16;  // magic and header bytes: what must be read to know how much there is to read

struct KvImage {
  struct Group {
    KvGeometry geometry;
    uint32_t first_page = 0;
    std::vector<uint64_t> checksums;  // of each page
    uint64_t begin = 0;               // of its pages in the file that was parsed
  };
  struct StateGroup {
    KvGeometry geometry;              // not recurrent: there are none
    std::vector<SavedState> at;       // ascending: boundaries of pages, and of the last one where the history was
    std::vector<uint64_t> checksums;  // of each state
    uint64_t begin = 0;               // of the states in the file that was parsed
  };
  /// What a model's saves have in them.
  struct Expected {
    uint64_t fingerprint = 0;
    std::string device;
    uint32_t max_tokens = 0, vocab_size = 0;
    std::vector<KvGeometry> groups;
    KvGeometry states{};  // not recurrent: there are none
  };
  uint64_t fingerprint = 0;
  std::string device;
  std::vector<int32_t> tokens;
  std::vector<Group> groups;
  StateGroup states;

  /// The header; the pages follow it.
  std::vector<std::byte> header() const;

  // Reading; ModelFormatError says what is wrong with `source`.
  /// The header's length, from the file's first kImagePrefix bytes: at most that of the longest history of such a
  /// model.
  static uint64_t header_bytes(std::span<const std::byte> prefix, uint64_t file_bytes, const Expected& expected,
                               const std::string& source);
  /// The header against its checksum: what was written is what was read.
  static void check_sum(std::span<const std::byte> header, const std::string& source);
  /// Every figure against what is expected, and the file's length against them.
  static KvImage parse(std::span<const std::byte> header, uint64_t file_bytes, const Expected& expected,
                       const std::string& source);
};

}  // namespace foundry
