// A saved history as bytes, version 1. Everything is little endian; the header ends with its own checksum.
//   "FNDRYKV1"
//   u64 header bytes (a multiple of kImageAlign: the pages begin there), u64 fingerprint of the model
//   u32 length and bytes of the device's name, u32 tokens, u32 groups
//   a group: u32 layers, KV heads, head_dim, window, page_tokens, tile_tokens, K type, V type; u64 page bytes; u32 first page,
//   pages: those before the first one a window has passed
//   i32 each token; u64 each page's checksum, group after group; zeros; u64 checksum of all before
//   the pages, group after group
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "kv/kv.h"

namespace foundry {

inline constexpr uint64_t kImageAlign = 16384;  // the largest page of the systems there are

struct KvImage {
  struct Group {
    KvGeometry geometry;
    uint32_t first_page = 0;
    std::vector<uint64_t> checksums;           // of each page
    std::vector<const std::byte*> pages = {};  // where they lie
  };
  uint64_t fingerprint = 0;
  std::string device;
  std::vector<int32_t> tokens;
  std::vector<Group> groups;

  /// The header; the pages follow it.
  std::vector<std::byte> header() const;
  /// Header and pages' places; pages are not read. ModelFormatError says what is wrong with `source`.
  static KvImage parse(std::span<const std::byte> bytes, const std::string& source);
};

}  // namespace foundry
