// Memory of host devices: pieces of an arena keep to themselves and come back, and what is large lies in huge pages.
#include "device/host_arena.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <random>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"
#include "base/system_page.h"
#include "device/host_buffer.h"

using namespace foundry;

namespace {

struct Held {
  std::unique_ptr<Buffer> piece;
  int value;
  std::byte* data() const { return reinterpret_cast<std::byte*>(piece->address()); }
  bool intact() const {
    return std::all_of(data(), data() + piece->bytes(),
                       [&](std::byte b) { return b == static_cast<std::byte>(value); });
  }
};

Held write(std::unique_ptr<Buffer> piece, int value) {
  std::memset(reinterpret_cast<void*>(piece->address()), value, piece->bytes());
  return {std::move(piece), value};
}

/// A figure of /proc/self/smaps, in bytes, summed over the mappings that begin in begin .. end.
uint64_t mapped_figure(const std::string& name, uint64_t begin, uint64_t end) {
  std::ifstream maps("/proc/self/smaps");
  uint64_t total = 0;
  bool inside = false;
  for (std::string line; std::getline(maps, line);) {
    std::istringstream words(line);
    std::string first;
    words >> first;
    if (const auto dash = first.find('-'); dash != std::string::npos && first.back() != ':') {
      const uint64_t at = std::stoull(first.substr(0, dash), nullptr, 16);
      inside = begin <= at && at < end;
    } else if (uint64_t kib = 0; inside && first == name + ":" && words >> kib) {
      total += kib << 10;
    }
  }
  return total;
}

bool system_gives_huge_pages() {
  std::ifstream setting("/sys/kernel/mm/transparent_hugepage/enabled");
  std::string text;
  std::getline(setting, text);
  return text.find("[always]") != std::string::npos || text.find("[madvise]") != std::string::npos;
}

}  // namespace

TEST_CASE("arena: pieces of any size keep their bytes, whatever else comes and goes") {
  HostArena arena;
  std::mt19937 random(1);
  std::vector<Held> held;
  for (int round = 0; round < 2000; ++round) {
    if (held.size() < 20 || random() % 2 == 0) {
      const uint64_t bytes = 1 + random() % (random() % 8 == 0 ? 3000000 : 20000);
      auto piece = arena.allocate(bytes);
      CHECK((piece->bytes() == bytes && piece->address() % system_page() == 0 && piece->host() == nullptr));
      const auto* data = reinterpret_cast<const std::byte*>(piece->address());
      CHECK(std::all_of(data, data + bytes, [](std::byte b) { return b == std::byte{0}; }));  // also where another was
      held.push_back(write(std::move(piece), round % 255 + 1));
    } else {
      const size_t i = random() % held.size();
      CHECK(held[i].intact());
      std::swap(held[i], held.back());
      held.pop_back();
    }
  }
  for (const Held& one : held) CHECK(one.intact());
}

TEST_CASE("arena: the room of a piece that went is taken again, in one part with its neighbours'") {
  HostArena arena;
  const uint64_t page = system_page();
  auto a = arena.allocate(page), b = arena.allocate(page - 1), c = arena.allocate(page), d = arena.allocate(page);
  const uint64_t first = a->address();
  CHECK((b->address() == first + page && c->address() == first + 2 * page));
  b.reset();
  CHECK((b = arena.allocate(1))->address() == first + page);
  a.reset(), c.reset(), b.reset();  // to the left, to the right, between
  CHECK(arena.allocate(3 * page)->address() == first);
}

TEST_CASE("arena: pieces outlive it, and go in any thread") {
  std::vector<Held> held;
  {
    HostArena arena;
    for (int i = 0; i < 64; ++i) held.push_back(write(arena.allocate(100000), i));
  }
  for (const Held& one : held) CHECK(one.intact());
  std::thread even([&] {
    for (size_t i = 0; i < 64; i += 2) held[i].piece.reset();
  });
  for (size_t i = 1; i < 64; i += 2) held[i].piece.reset();
  even.join();
}

TEST_CASE("arena: a refusal of the system has figures and changes nothing") {
  HostArena arena;
  const Held held = write(arena.allocate(1000), 7);
  for (const uint64_t bytes : {UINT64_MAX, UINT64_MAX / 2, uint64_t{1} << 60}) {
    try {
      arena.allocate(bytes);
      FAIL("allocated more than there can be");
    } catch (const MemoryLimitError& error) {
      CHECK(error.needed_bytes >= bytes / 2);
    }
  }
  CHECK((held.intact() && arena.allocate(1000)->bytes() == 1000));
}

#ifdef __linux__
TEST_CASE("arena: weights lie in huge pages, where the system has them; a buffer too, but for its end") {
  if (!system_gives_huge_pages()) return;
  HostArena arena;
  std::vector<Held> held;
  for (int i = 0; i < 40; ++i) held.push_back(write(arena.allocate(1500000), i));  // none fills a huge page
  uint64_t low = UINT64_MAX, high = 0, huge = 0;
  for (const Held& one : held)
    low = std::min(low, one.piece->address()), high = std::max(high, one.piece->address() + one.piece->bytes());
  huge = mapped_figure("AnonHugePages", low, high);
  CHECK(huge >= 40 * 1500000 / 2);  // a system that is short of them may give fewer

  const auto buffer = make_host_buffer(5 * kHugePageBytes / 2, MemoryKind::device);
  const uint64_t at = buffer->address();
  CHECK(at % kHugePageBytes == 0);
  std::memset(reinterpret_cast<void*>(at), 1, buffer->bytes());
  CHECK(mapped_figure("Rss", at, at + buffer->bytes()) == buffer->bytes());
}
#endif
