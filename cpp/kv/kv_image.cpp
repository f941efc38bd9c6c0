#include "kv/kv_image.h"

#include <cstring>

#include "base/checked.h"
#include "base/error.h"
#include "base/hash.h"

namespace foundry {
namespace {

constexpr char kMagic[8] = {'F', 'N', 'D', 'R', 'Y', 'K', 'V', '1'};
constexpr uint32_t kMostGroups = 64, kMostName = 256;

class Writer {
 public:
  std::vector<std::byte> bytes;
  void raw(const void* data, size_t n) {
    const auto* p = static_cast<const std::byte*>(data);
    bytes.insert(bytes.end(), p, p + n);
  }
  template <class T>
  void number(T value) {
    raw(&value, sizeof value);
  }
};

class Reader {
 public:
  Reader(std::span<const std::byte> bytes, const std::string& source) : bytes_(bytes), source_(source) {}
  [[noreturn]] void fail(const std::string& what) const { throw ModelFormatError(source_ + ": " + what); }
  const std::byte* take(uint64_t n, const char* what) {
    if (n > bytes_.size() - at_)
      fail(std::string(what) + ": expected " + std::to_string(n) + " bytes at byte " + std::to_string(at_) +
           ", found " + std::to_string(bytes_.size() - at_));
    at_ += n;
    return bytes_.data() + at_ - n;
  }
  template <class T>
  T number(const char* what) {
    T value;
    std::memcpy(&value, take(sizeof value, what), sizeof value);
    return value;
  }
  uint32_t at_most(uint32_t most, const char* what) {
    const auto value = number<uint32_t>(what);
    if (value > most)
      fail(std::string(what) + ": expected at most " + std::to_string(most) + ", found " + std::to_string(value));
    return value;
  }
  uint64_t at() const { return at_; }

 private:
  std::span<const std::byte> bytes_;
  const std::string& source_;
  uint64_t at_ = 0;
};

}  // namespace

std::vector<std::byte> KvImage::header() const {
  Writer w;
  w.raw(kMagic, sizeof kMagic);
  w.number(uint64_t{0});  // the header's length, once it is known
  w.number(fingerprint);
  w.number(static_cast<uint32_t>(device.size())), w.raw(device.data(), device.size());
  w.number(static_cast<uint32_t>(tokens.size())), w.number(static_cast<uint32_t>(groups.size()));
  for (const Group& group : groups) {
    const KvGeometry& g = group.geometry;
    for (const uint32_t value : {g.n_layers, g.n_kv_heads, g.head_dim, g.window, g.page_tokens, g.tile_tokens,
                                 static_cast<uint32_t>(g.k_type), static_cast<uint32_t>(g.v_type)})
      w.number(value);
    w.number(g.page_bytes()), w.number(group.first_page), w.number(static_cast<uint32_t>(group.checksums.size()));
  }
  w.raw(tokens.data(), tokens.size() * sizeof(int32_t));
  for (const Group& group : groups) w.raw(group.checksums.data(), group.checksums.size() * sizeof(uint64_t));
  w.bytes.resize(round_up(w.bytes.size() + sizeof(uint64_t), kImageAlign) - sizeof(uint64_t));
  const uint64_t length = w.bytes.size() + sizeof(uint64_t);
  std::memcpy(w.bytes.data() + sizeof kMagic, &length, sizeof length);
  w.number(hash64(w.bytes));
  return std::move(w.bytes);
}

KvImage KvImage::parse(std::span<const std::byte> bytes, const std::string& source) {
  Reader r(bytes, source);
  if (std::memcmp(r.take(sizeof kMagic, "magic"), kMagic, sizeof kMagic) != 0)
    r.fail("expected a saved session, version 1, found another file");
  const auto length = r.number<uint64_t>("header length");
  if (length % kImageAlign != 0 || length == 0 || length > bytes.size())
    r.fail("header: expected at most the file's " + std::to_string(bytes.size()) + " bytes, found " +
           std::to_string(length));
  uint64_t checksum;
  std::memcpy(&checksum, bytes.data() + length - sizeof checksum, sizeof checksum);
  if (checksum != hash64(bytes.first(length - sizeof checksum))) r.fail("the header is damaged: its checksum differs");

  // From here on the bytes are what a save wrote, unless someone took the trouble: counts are checked all the same.
  KvImage image;
  image.fingerprint = r.number<uint64_t>("fingerprint");
  const uint32_t name = r.at_most(kMostName, "device name's length");
  image.device.assign(reinterpret_cast<const char*>(r.take(name, "device name")), name);
  const auto n_tokens = r.number<uint32_t>("tokens");
  const uint32_t n_groups = r.at_most(kMostGroups, "groups");
  std::vector<uint32_t> n_pages;
  std::vector<uint64_t> page_bytes;
  for (uint32_t i = 0; i < n_groups; ++i) {
    Group& group = image.groups.emplace_back();
    KvGeometry& g = group.geometry;
    for (uint32_t* value : {&g.n_layers, &g.n_kv_heads, &g.head_dim, &g.window, &g.page_tokens, &g.tile_tokens})
      *value = r.number<uint32_t>("a group's geometry");
    g.k_type = static_cast<DType>(r.number<uint32_t>("K type")),
    g.v_type = static_cast<DType>(r.number<uint32_t>("V type"));
    page_bytes.push_back(r.number<uint64_t>("page bytes"));
    if (page_bytes.back() == 0) r.fail("a page of no bytes");
    group.first_page = r.number<uint32_t>("first page");
    n_pages.push_back(r.number<uint32_t>("pages"));
  }
  const std::byte* tokens = r.take(uint64_t{n_tokens} * sizeof(int32_t), "tokens");
  image.tokens.resize(n_tokens);
  if (n_tokens != 0) std::memcpy(image.tokens.data(), tokens, n_tokens * sizeof(int32_t));
  for (uint32_t i = 0; i < n_groups; ++i) {
    const std::byte* sums = r.take(uint64_t{n_pages[i]} * sizeof(uint64_t), "checksums");
    image.groups[i].checksums.resize(n_pages[i]);
    if (n_pages[i] != 0) std::memcpy(image.groups[i].checksums.data(), sums, n_pages[i] * sizeof(uint64_t));
  }
  if (r.at() > length - sizeof checksum) r.fail("the header is longer than it says");
  uint64_t at = length;
  for (uint32_t i = 0; i < n_groups; ++i)
    for (uint32_t p = 0; p < n_pages[i]; ++p) {
      if (page_bytes[i] > bytes.size() - at)
        r.fail("truncated: page " + std::to_string(p) + " of group " + std::to_string(i) + ": expected " +
               std::to_string(page_bytes[i]) + " bytes at byte " + std::to_string(at) + ", found " +
               std::to_string(bytes.size() - at));
      image.groups[i].pages.push_back(bytes.data() + at);
      at += page_bytes[i];
    }
  if (at != bytes.size()) r.fail("expected " + std::to_string(at) + " bytes, found " + std::to_string(bytes.size()));
  return image;
}

}  // namespace foundry
