// What sequences are promised, together, is what there is memory for: also where they share pages and go back.
#include <doctest/doctest.h>

#include <memory>
#include <random>
#include <vector>

#include "base/error.h"
#include "device/host_buffer.h"
#include "device/unified.h"
#include "kv/context_memory.h"
#include "kv/sequence.h"

namespace foundry {
namespace {

class HostMemory final : public Unified<DeviceMemory> {
 public:
  std::unique_ptr<Buffer> allocate(uint64_t bytes, MemoryKind kind) override { return make_host_buffer(bytes, kind); }
};

constexpr uint32_t kPageTokens = 8, kMost = 512;

KvGeometry pages() {
  KvGeometry g;
  g.n_layers = 1, g.n_kv_heads = 1, g.head_dim = 8, g.page_tokens = kPageTokens, g.tile_tokens = kPageTokens;
  return g;
}

/// Room for `n_pages`, in slabs of one, and for `n_tables` tables of `tokens`.
struct Memory {
  HostMemory device;
  MemoryLedger ledger;
  ContextMemory memory;
  Memory(uint64_t n_pages, uint64_t n_tables, uint32_t tokens)
      : ledger(n_pages * pages().page_bytes() + n_tables * table_bytes(tokens)),
        memory(device, ledger, {pages()}, kMost, 1, 0, 0) {}

  static uint64_t table_bytes(uint32_t tokens) {
    HostMemory device;
    MemoryLedger ledger(1 << 20);
    return ContextMemory(device, ledger, {pages()}, kMost, 1, 0, 0).table_bytes(tokens);
  }
};

void feed(Sequence& sequence, uint32_t n_tokens) {
  Reservation rows = sequence.reserve(n_tokens);
  rows.commit(std::vector<int32_t>(n_tokens, 1));
}

}  // namespace

TEST_CASE("promises: who goes back while a fork holds the pages is promised what can be had") {
  for (const bool room : {false, true}) {
    CAPTURE(room);
    Memory m(room ? 16 : 12, 2, 64);  // four pages are shared, and each may take four more
    Sequence a(m.memory);
    a.promise(64);
    feed(a, 32);
    const std::unique_ptr<Sequence> b = a.fork();
    a.rewind(0);
    CHECK(a.figures().promised == (room ? 64 : 0));
    CHECK(m.memory.admission().available_bytes() == (room ? 0 : 4 * pages().page_bytes()));
    if (room)
      feed(a, 64);
    else
      CHECK_THROWS_AS(a.promise(64), MemoryLimitError);
    feed(*b, 32);  // what it was promised is there, whatever the other did
    b->clear();
    a.promise(64);
    a.rewind(0);
    feed(a, 64);
  }
}

TEST_CASE("promises: who goes back beside a snapshot is promised what it was") {
  Memory m(8, 1, 64);
  Sequence a(m.memory);
  a.promise(64);
  feed(a, 48);
  {
    const Sequence::Snapshot before = a.snapshot();
    a.rewind(8, true);
    a.go_back(before);
    CHECK((a.tokens().size() == 48 && a.figures().promised == 64));
    a.rewind(8, true);
  }
  CHECK(a.figures().promised == 64);
  feed(a, 56);
}

TEST_CASE("promises: whatever sequences do, what they are promised is had") {
  std::mt19937 random(7);
  for (int round = 0; round < 200; ++round) {
    Memory m(24 + random() % 24, 4, 96);
    std::vector<std::unique_ptr<Sequence>> all;
    for (int step = 0; step < 60; ++step) {
      const uint32_t what = random() % 6;
      if (all.empty() || (what == 0 && all.size() < 4)) {
        auto made = std::make_unique<Sequence>(m.memory);
        try {
          made->promise(random() % 97);
          all.push_back(std::move(made));
        } catch (const MemoryLimitError&) {}
        continue;
      }
      Sequence& one = *all[random() % all.size()];
      const auto position = static_cast<uint32_t>(one.tokens().size()), promised = one.figures().promised;
      if (what == 1 && all.size() < 4) {
        try {
          all.push_back(one.fork());
        } catch (const MemoryLimitError&) {}
      } else if (what == 2) {
        one.rewind(random() % (position + 1));
      } else if (what == 3) {
        all.erase(all.begin() + static_cast<std::ptrdiff_t>(random() % all.size()));
      } else if (position < promised) {
        feed(one, 1 + random() % (promised - position));
      }
    }
  }
}

}  // namespace foundry
