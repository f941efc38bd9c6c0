#include "kv/kv_image.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <string_view>

#include "base/checked.h"
#include "base/error.h"
#include "base/hash.h"

namespace foundry {
namespace {

constexpr char kMagic[8] = {'F', 'N', 'D', 'R', 'Y', 'K', 'V', '4'};
constexpr uint64_t kMostName = 256;
constexpr uint64_t kGroupBytes = 8 * 4 + 8 + 4 + 4;
constexpr uint64_t kFixedBytes = kImagePrefix + 8 + 4 + 4 + 4;

constexpr uint64_t kStatesBytes = 4 + 8 + 4;

/// One at the end of each page, and one where the history is.
uint64_t most_states(const KvGeometry& geometry, uint64_t n_tokens) { return n_tokens / geometry.page_tokens + 1; }

/// What a header of so many bytes takes with its checksum, zeros between them.
uint64_t padded(uint64_t bytes) { return round_up(bytes + sizeof(uint64_t), kImageAlign); }

/// A file's text may be anything; a message is to be read.
std::string printable(std::string_view text) {
  std::string shown(text);
  for (char& c : shown)
    if (c < ' ' || c > '~') c = '?';
  return shown;
}

std::array<uint32_t, 8> figures(const KvGeometry& g) {
  return {g.n_layers,
          g.n_kv_heads,
          g.head_dim,
          g.window,
          g.page_tokens,
          g.tile_tokens,
          static_cast<uint32_t>(g.k_type),
          static_cast<uint32_t>(g.v_type)};
}

std::string layout(const std::array<uint32_t, 8>& f) {
  const auto text = [&f](size_t i) { return std::to_string(f[i]); };
  return text(0) + " layers, " + text(1) + " KV heads of " + text(2) + ", window " + text(3) + ", pages of " + text(4) +
         " in tiles of " + text(5) + ", K in type " + text(6) + ", V in type " + text(7);
}

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
  /// A figure that can only be this one.
  void expect(uint64_t expected, uint64_t found, const std::string& what) const {
    if (found != expected) fail(what + ": expected " + std::to_string(expected) + ", found " + std::to_string(found));
  }
  uint32_t at_most(uint64_t most, const char* what) {
    const auto value = number<uint32_t>(what);
    if (value > most)
      fail(std::string(what) + ": expected at most " + std::to_string(most) + ", found " + std::to_string(value));
    return value;
  }
  template <class T>
  void numbers(std::vector<T>& to, const char* what) {
    const std::byte* from = take(to.size() * sizeof(T), what);
    if (!to.empty()) std::memcpy(to.data(), from, to.size() * sizeof(T));
  }
  void expect_zeros() const {
    const auto left = bytes_.subspan(at_);
    if (!std::all_of(left.begin(), left.end(), [](std::byte b) { return b == std::byte{0}; }))
      fail("expected zeros behind the header's figures");
  }
  uint64_t at() const { return at_; }

 private:
  std::span<const std::byte> bytes_;
  const std::string& source_;
  uint64_t at_ = 0;
};

KvImage::StateGroup read_states(Reader& r, const KvGeometry& geometry, uint32_t n_tokens) {
  KvImage::StateGroup states{geometry, {}, {}, 0};
  r.expect(geometry.n_layers, r.number<uint32_t>("recurrent layers"), "recurrent layers");
  r.expect(geometry.page_bytes(), r.number<uint64_t>("bytes of a state"), "bytes of a state");
  std::vector<uint32_t> positions(r.at_most(static_cast<uint32_t>(most_states(geometry, n_tokens)), "states"));
  r.numbers(positions, "positions of states");
  std::vector<uint8_t> turns(positions.size());
  r.numbers(turns, "ends of turns");
  uint32_t before = 0;
  for (size_t i = 0; i < positions.size(); ++i) {
    const uint32_t position = positions[i];
    const bool whole = position % geometry.page_tokens == 0;
    if (position <= before || position > n_tokens || (!whole && position != n_tokens))
      r.fail("a state's position: expected whole pages behind " + std::to_string(before) + ", or the end at " +
             std::to_string(n_tokens) + ", found " + std::to_string(position));
    if (turns[i] > (whole ? 1 : 0))
      r.fail("a turn's end behind the state at " + std::to_string(position) + ": expected " + (whole ? "0 or 1" : "0") +
             ", found " + std::to_string(turns[i]));
    states.at.push_back({position, turns[i] != 0});
    before = position;
  }
  states.checksums.resize(positions.size());
  return states;
}

}  // namespace

std::vector<std::byte> KvImage::header() const {
  Writer w;
  w.raw(kMagic, sizeof kMagic);
  w.number(uint64_t{0});  // the header's length, once it is known
  w.number(fingerprint);
  w.number(static_cast<uint32_t>(device.size())), w.raw(device.data(), device.size());
  w.number(static_cast<uint32_t>(tokens.size())), w.number(static_cast<uint32_t>(groups.size()));
  for (const Group& group : groups) {
    for (const uint32_t value : figures(group.geometry)) w.number(value);
    w.number(group.geometry.page_bytes()), w.number(group.first_page);
    w.number(static_cast<uint32_t>(group.checksums.size()));
  }
  if (states.geometry.recurrent()) {
    w.number(states.geometry.n_layers), w.number(states.geometry.page_bytes());
    w.number(static_cast<uint32_t>(states.at.size()));
    for (const SavedState& one : states.at) w.number(one.position);
    for (const SavedState& one : states.at) w.number(static_cast<uint8_t>(one.turn));
  }
  w.raw(tokens.data(), tokens.size() * sizeof(int32_t));
  for (const Group& group : groups) w.raw(group.checksums.data(), group.checksums.size() * sizeof(uint64_t));
  w.raw(states.checksums.data(), states.checksums.size() * sizeof(uint64_t));
  w.bytes.resize(padded(w.bytes.size()) - sizeof(uint64_t));
  const uint64_t length = w.bytes.size() + sizeof(uint64_t);
  std::memcpy(w.bytes.data() + sizeof kMagic, &length, sizeof length);
  w.number(hash64(w.bytes));
  return std::move(w.bytes);
}

uint64_t KvImage::header_bytes(std::span<const std::byte> prefix, uint64_t file_bytes, const Expected& expected,
                               const std::string& source) {
  const uint32_t max_tokens = expected.max_tokens;
  Reader r(prefix, source);
  const std::byte* magic = r.take(sizeof kMagic, "magic");
  if (std::memcmp(magic, kMagic, sizeof kMagic - 1) != 0) r.fail("expected a saved session, found another file");
  if (const char version = static_cast<char>(magic[sizeof kMagic - 1]); version != kMagic[sizeof kMagic - 1])
    r.fail("expected a saved session of version 4, found one of version " + printable({&version, 1}));
  uint64_t most = kFixedBytes + kMostName + uint64_t{max_tokens} * sizeof(int32_t);
  for (const KvGeometry& group : expected.groups) most += kGroupBytes + group.pages_for(max_tokens) * sizeof(uint64_t);
  if (expected.states.recurrent())
    most += kStatesBytes +
            most_states(expected.states, max_tokens) * (sizeof(uint32_t) + sizeof(uint8_t) + sizeof(uint64_t));
  const auto length = r.number<uint64_t>("header length");
  if (length % kImageAlign != 0 || length == 0 || length > padded(most))
    r.fail("header: expected at most the " + std::to_string(padded(most)) + " bytes of " + std::to_string(max_tokens) +
           " tokens, a multiple of " + std::to_string(kImageAlign) + ", found " + std::to_string(length));
  if (length > file_bytes)
    r.fail("header: expected at most the file's " + std::to_string(file_bytes) + " bytes, found " +
           std::to_string(length));
  return length;
}

void KvImage::check_sum(std::span<const std::byte> header, const std::string& source) {
  uint64_t checksum;
  const std::span<const std::byte> summed = header.first(header.size() - sizeof checksum);
  std::memcpy(&checksum, header.data() + summed.size(), sizeof checksum);
  if (checksum != hash64(summed)) throw ModelFormatError(source + ": the header is damaged: its checksum differs");
}

KvImage KvImage::parse(std::span<const std::byte> header, uint64_t file_bytes, const Expected& expected,
                       const std::string& source) {
  Reader r(header.first(header.size() - sizeof(uint64_t)), source);
  r.take(kImagePrefix, "magic");
  KvImage image;
  image.fingerprint = r.number<uint64_t>("fingerprint");
  if (image.fingerprint != expected.fingerprint) r.fail("saved with another model");
  const uint32_t name = r.at_most(kMostName, "device name's length");
  image.device.assign(reinterpret_cast<const char*>(r.take(name, "device name")), name);
  if (image.device != expected.device)
    r.fail("device: expected " + expected.device + ", found " + printable(image.device) +
           ": its bits would not be this device's");
  const uint32_t n_tokens = r.at_most(expected.max_tokens, "tokens");
  r.expect(expected.groups.size(), r.number<uint32_t>("layer groups"), "layer groups");
  for (const KvGeometry& geometry : expected.groups) {
    std::array<uint32_t, 8> found;
    for (uint32_t& figure : found) figure = r.number<uint32_t>("layout");
    if (found != figures(geometry))
      r.fail("layout: expected " + layout(figures(geometry)) + ", found " + layout(found));
    r.expect(geometry.page_bytes(), r.number<uint64_t>("page bytes"), "page bytes");
    const uint64_t first = r.number<uint32_t>("first page"), pages = geometry.pages_for(n_tokens);
    if (first > pages || geometry.rewindable_to(first) > n_tokens || (first != 0 && geometry.window == 0))
      r.fail("first page: expected one that the last row's window does not pass, found " + std::to_string(first));
    r.expect(pages - first, r.number<uint32_t>("pages"), "pages");
    image.groups.push_back({geometry, static_cast<uint32_t>(first), std::vector<uint64_t>(pages - first), 0});
  }
  if (expected.states.recurrent()) image.states = read_states(r, expected.states, n_tokens);
  image.tokens.resize(n_tokens);
  r.numbers(image.tokens, "tokens");
  for (const int32_t token : image.tokens)
    if (token < 0 || static_cast<uint32_t>(token) >= expected.vocab_size)
      r.fail("a token outside the vocabulary: expected at most " + std::to_string(expected.vocab_size - 1) +
             ", found " + std::to_string(token));
  for (Group& group : image.groups) r.numbers(group.checksums, "checksums");
  r.numbers(image.states.checksums, "checksums of states");
  r.expect(padded(r.at()), header.size(), "header bytes");
  r.expect_zeros();
  uint64_t end = header.size();
  for (Group& group : image.groups) {
    group.begin = end;
    end += group.checksums.size() * group.geometry.page_bytes();
  }
  image.states.begin = end;
  end += image.states.checksums.size() * image.states.geometry.page_bytes();
  if (end != file_bytes) r.fail("expected " + std::to_string(end) + " bytes, found " + std::to_string(file_bytes));
  return image;
}

}  // namespace foundry
