// Context memory: geometry, pages by reference count, slabs that come and go, a table that grows without touching what it holds.
#include "kv/kv.h"

#include <doctest/doctest.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <functional>
#include <new>
#include <random>
#include <set>
#include <string>
#include <thread>

#include "base/error.h"
#include "device/host_buffer.h"
#include "device/unified.h"

namespace foundry {
namespace {

/// Slabs are counted, tables of addresses not: in the pools of these tests only a slab is threefold.
bool is_slab(uint64_t bytes) { return bytes % 3072 == 0; }

/// Allocates, counts, and fails on demand; computes nothing.
class FailingMemory final : public Unified<DeviceMemory> {
 public:
  /// The nth allocation from now on fails, as the device or as the system would; 0: none.
  void fail_at(uint64_t nth, bool system = false) { left_ = nth, system_ = system, failures_ = 0; }
  uint64_t failures() const { return failures_; }
  uint64_t allocations() const { return allocations_; }
  uint64_t live_bytes() const { return live_bytes_; }
  std::function<void(uint64_t bytes)> on_allocate;

  std::unique_ptr<Buffer> allocate(uint64_t bytes, MemoryKind kind) override {
    if (on_allocate) on_allocate(bytes);
    if (left_ != 0 && --left_ == 0) {
      ++failures_;
      if (system_) throw std::bad_alloc();
      throw MemoryLimitError("refused", bytes, 0);
    }
    allocations_ += is_slab(bytes) ? 1 : 0;
    return std::make_unique<Counted>(make_host_buffer(bytes, kind), live_bytes_);
  }

 private:
  struct Counted final : Buffer {
    Counted(std::unique_ptr<Buffer> buffer, std::atomic<uint64_t>& live) : inner(std::move(buffer)), live_bytes(live) {
      live_bytes += counted();
    }
    ~Counted() override { live_bytes -= counted(); }
    uint64_t counted() const { return is_slab(inner->bytes()) ? inner->bytes() : 0; }
    std::byte* host() override { return inner->host(); }
    uint64_t address() const override { return inner->address(); }
    uint64_t bytes() const override { return inner->bytes(); }
    std::unique_ptr<Buffer> inner;
    std::atomic<uint64_t>& live_bytes;
  };
  bool system_ = false;
  std::atomic<uint64_t> left_{0}, failures_{0}, allocations_{0};  // tables are allocated outside the pool's lock
  std::atomic<uint64_t> live_bytes_{0};
};

/// A page as kernels of this memory's device would see it.
std::byte* bytes_of(const PagePool& pool, PageId page) { return pool.span(page).as<std::byte>(); }

std::vector<uint64_t> addresses_of(const PageTable& table) {
  return {table.addresses().begin(), table.addresses().end()};
}

KvGeometry small() {
  KvGeometry g;
  g.n_layers = 2;
  g.n_kv_heads = 2;
  g.head_dim = 8;
  g.page_tokens = 8;
  g.tile_tokens = 8;
  return g;  // a page: 2 layers x 2 heads x (K + V) of 8 x 8 f16 = 1024 bytes
}

/// Everything that an observer can see of a pool: what a failure must leave alone.
struct State {
  uint64_t held, charged, device_bytes;
  uint32_t slabs, used, free;
  bool operator==(const State&) const = default;
};

struct Fixture {
  FailingMemory device;
  MemoryLedger ledger{1 << 20};
  PagePool pool{device, ledger, small(), 3};

  State state() const {
    return {pool.held_bytes(), ledger.used(MemoryUse::kv), device.live_bytes(),
            pool.slab_count(), pool.used_pages(),          pool.free_pages()};
  }
  /// The ledger, the pool and the device tell the same story.
  void check_books() const {
    const State s = state();
    CHECK(s.held == s.slabs * pool.slab_bytes());
    CHECK(s.charged == s.held);
    CHECK(s.device_bytes == s.held);
    CHECK(ledger.total() == s.held);
    CHECK(s.used + s.free == s.slabs * pool.slab_pages());
    const std::vector<uint64_t> lengths = pool.slab_lengths();
    CHECK(lengths == std::vector<uint64_t>(s.slabs, pool.slab_bytes()));
  }
  void release(const std::vector<PageId>& pages) {
    for (const PageId page : pages) pool.release(page);
  }
};

}  // namespace

TEST_CASE("geometry: bytes of a page, and the strides that kernels get") {
  KvGeometry g;
  g.n_layers = 3;
  g.n_kv_heads = 2;
  g.head_dim = 64;
  g.k_type = DType::f16;
  g.v_type = DType::q8_0;  // 34 bytes for 32 elements, never across tokens
  CHECK(g.k_part_bytes() == 64 * 64 * 2);
  CHECK(g.v_part_bytes() == 64 * 2 * 34);
  CHECK(g.page_bytes() == 3 * 2 * (8192 + 4352));
  g.check();
  const KvParams p = g.params();
  CHECK((p.k_part_bytes == 8192 && p.head_stride_bytes == 12544 && p.layer_stride_bytes == 25088));
  CHECK((p.page_bytes == 75264 && p.page_tokens == 64 && p.tile_tokens == 16));
  CHECK((p.n_kv_heads == 2 && p.head_dim == 64 && p.k_type == 1 && p.v_type == 8));
  CHECK((g.pages_for(0) == 0 && g.pages_for(1) == 1 && g.pages_for(64) == 1 && g.pages_for(65) == 2));
  CHECK(g.pages_for(uint64_t{1} << 40) == uint64_t{1} << 34);
}

TEST_CASE("geometry: what does not hold together is refused, with what was expected and found") {
  const auto refused = [](const std::function<void(KvGeometry&)>& change, const std::string& what) {
    KvGeometry g = small();
    change(g);
    try {
      g.check();
      FAIL("accepted: " << what);
    } catch (const ValueError& error) {
      CHECK_MESSAGE(std::string(error.what()).find(what) != std::string::npos, error.what());
    }
  };
  for (const uint32_t tokens : {0u, 4u, 24u, 512u})
    refused([&](KvGeometry& g) { g.page_tokens = tokens; }, "found " + std::to_string(tokens));
  for (const uint32_t tile : {0u, 3u, 16u})
    refused([&](KvGeometry& g) { g.tile_tokens = tile; }, "page_tokens, 8, found " + std::to_string(tile));
  refused([](KvGeometry& g) { g.n_layers = 0; }, "found 0 and 2");
  refused([](KvGeometry& g) { g.n_kv_heads = 0; }, "found 2 and 0");
  for (const uint32_t dim : {0u, 12u})
    refused([&](KvGeometry& g) { g.head_dim = dim; }, "multiple of 8 for K in f16 and V in f16, found");
  refused([](KvGeometry& g) { g.k_type = DType::q8_0; }, "multiple of 32 for K in q8_0 and V in f16, found 8");
  for (const uint32_t tokens : {8u, 16u, 32u, 64u, 128u, 256u}) {
    KvGeometry g = small();
    g.page_tokens = tokens;
    CHECK_NOTHROW(g.check());
  }
}

TEST_CASE("capacity: whole pages, clamped to the model after rounding, without wrapping") {
  CHECK(capacity_tokens(0, 64, 300) == 0);
  CHECK(capacity_tokens(4, 64, 300) == 256);
  CHECK(capacity_tokens(5, 64, 300) == 300);
  CHECK(capacity_tokens(UINT32_MAX, 256, 131072) == 131072);
  CHECK(capacity_tokens(1 << 24, 256, UINT32_MAX) == UINT32_MAX);
}

TEST_CASE_FIXTURE(Fixture, "pool: pages lie apart, inside their slabs, and hold what is written") {
  const std::vector<PageId> pages = pool.acquire(7);
  const uint64_t size = pool.geometry().page_bytes();
  CHECK(size == 1024);
  CHECK(std::set<PageId>(pages.begin(), pages.end()).size() == 7);
  for (size_t i = 0; i < pages.size(); ++i) {
    CHECK(pool.references(pages[i]) == 1);
    CHECK(pool.address(pages[i]) == reinterpret_cast<uint64_t>(bytes_of(pool, pages[i])));
    std::memset(bytes_of(pool, pages[i]), static_cast<int>(i + 1),
                size);  // the sanitizer sees a page past its slab's end
  }
  for (size_t i = 0; i < pages.size(); ++i)
    CHECK(std::count(bytes_of(pool, pages[i]), bytes_of(pool, pages[i]) + size, std::byte(i + 1)) == 1024);
  CHECK((pool.slab_count() == 3 && pool.used_pages() == 7 && pool.free_pages() == 2));
  check_books();
  release(pages);
  CHECK(state() == State{});
}

TEST_CASE_FIXTURE(Fixture, "pool: the last reference frees the page, the last page its slab") {
  const std::vector<PageId> pages = pool.acquire(6);  // two slabs
  pool.retain(pages[0]);
  pool.retain(pages[0]);
  CHECK(pool.references(pages[0]) == 3);
  pool.release(pages[1]);
  pool.release(pages[2]);
  CHECK((pool.references(pages[1]) == 0 && pool.slab_count() == 2 && pool.used_pages() == 4));
  pool.release(pages[0]);
  pool.release(pages[0]);
  CHECK((pool.references(pages[0]) == 1 && pool.slab_count() == 2));
  check_books();
  pool.release(pages[0]);
  CHECK((pool.slab_count() == 1 && pool.used_pages() == 3));
  check_books();

  // The empty place is taken again, and pages beyond it are where they were.
  std::memset(bytes_of(pool, pages[4]), 42, 1024);
  const uint64_t address = pool.address(pages[4]);
  const std::vector<PageId> again = pool.acquire(2);
  for (const PageId page : again) CHECK(page < 3);
  CHECK(pool.address(pages[4]) == address);
  CHECK(bytes_of(pool, pages[4])[1023] == std::byte{42});
  release(again);
  release({pages[3], pages[4], pages[5]});
  CHECK(state() == State{});
}

TEST_CASE_FIXTURE(Fixture, "pool: pages come from the fullest slab, and no slab is added while one has room") {
  std::vector<PageId> pages = pool.acquire(9);
  release({pages[0], pages[1], pages[3]});  // 1, 2 and 3 pages used
  const uint64_t allocations = device.allocations();
  const std::vector<PageId> one = pool.acquire(1);
  CHECK(one == std::vector<PageId>{pages[3]});
  const std::vector<PageId> two = pool.acquire(2);
  CHECK(std::set<PageId>(two.begin(), two.end()) == std::set<PageId>{pages[0], pages[1]});
  CHECK(device.allocations() == allocations);
  const std::vector<PageId> more = pool.acquire(1);
  CHECK(device.allocations() == allocations + 1);
  CHECK(pool.acquire(0).empty());
  release(more);
  release(pages);
  CHECK(state() == State{});
}

TEST_CASE_FIXTURE(Fixture, "pool: a device that fails at any allocation leaves everything as it was") {
  const std::vector<PageId> held = pool.acquire(4);  // two slabs, two pages free
  std::memset(bytes_of(pool, held[0]), 7, 1024);
  const State before = state();
  const uint64_t address = pool.address(held[3]);
  for (const bool system : {false, true})
    for (uint64_t nth = 1; nth <= 4; ++nth) {  // 12 more pages: four slabs
      CAPTURE(nth);
      device.fail_at(nth, system);
      if (system)
        CHECK_THROWS_AS(pool.acquire(12), std::bad_alloc);
      else
        CHECK_THROWS_AS(pool.acquire(12), MemoryLimitError);
      CHECK(state() == before);
      CHECK(device.failures() == 1);
      for (const PageId page : held) CHECK(pool.references(page) == 1);
      CHECK(pool.address(held[3]) == address);
      CHECK(bytes_of(pool, held[0])[512] == std::byte{7});
      device.fail_at(0);
      const std::vector<PageId> pages = pool.acquire(12);  // usable afterwards
      CHECK(pool.slab_count() == 6);
      check_books();
      release(pages);
      CHECK(state() == before);
    }
  device.fail_at(1);
  release(pool.acquire(2));  // room enough: no allocation, no failure
  CHECK(device.failures() == 0);
  release(held);
  CHECK(state() == State{});
}

TEST_CASE("pool: a refusal by the ledger changes nothing, wherever it comes") {
  for (uint64_t slabs = 0; slabs < 4; ++slabs) {
    CAPTURE(slabs);
    FailingMemory device;
    MemoryLedger ledger(slabs * 3072 + 3071);  // one byte short of another slab
    PagePool pool(device, ledger, small(), 3);
    CHECK_THROWS_AS(pool.acquire(10), MemoryLimitError);
    CHECK((ledger.total() == 0 && pool.slab_count() == 0 && device.live_bytes() == 0));
    const std::vector<PageId> pages = pool.acquire(static_cast<uint32_t>(3 * slabs));
    CHECK((ledger.total() == slabs * 3072 && device.live_bytes() == slabs * 3072));
    CHECK_THROWS_AS(pool.acquire(1), MemoryLimitError);
    CHECK(ledger.total() == slabs * 3072);
    for (const PageId page : pages) pool.release(page);
    CHECK((ledger.total() == 0 && device.live_bytes() == 0));
  }
}

TEST_CASE_FIXTURE(Fixture, "pool: the ledger is charged before the device is asked") {
  uint64_t asked = 0;
  device.on_allocate = [&](uint64_t bytes) {
    ++asked;
    CHECK(ledger.used(MemoryUse::kv) == device.live_bytes() + bytes);
  };
  release(pool.acquire(10));
  CHECK(asked == 4);
}

TEST_CASE_FIXTURE(Fixture, "pool: poison fills what is handed out, again each time, and nothing else") {
  const std::vector<PageId> first = pool.acquire(1);
  std::memset(bytes_of(pool, first[0]), 1, 1024);
  pool.set_poison(true);
  for (int round = 0; round < 2; ++round) {
    const std::vector<PageId> next = pool.acquire(1);
    CHECK(std::count(bytes_of(pool, next[0]), bytes_of(pool, next[0]) + 1024, std::byte{0xff}) == 1024);
    CHECK(std::count(bytes_of(pool, first[0]), bytes_of(pool, first[0]) + 1024, std::byte{1}) == 1024);
    std::memset(bytes_of(pool, next[0]), 0, 1024);
    release(next);
  }
  release(first);
}

TEST_CASE_FIXTURE(Fixture, "pool: any order of taking, sharing and returning keeps the books") {
  std::mt19937 random(11);
  std::vector<PageId> references;  // one entry a reference
  for (int step = 0; step < 3000; ++step) {
    const uint32_t choice = random() % 8;
    if (choice < 3) {
      for (const PageId page : pool.acquire(random() % 3)) {
        REQUIRE(std::find(references.begin(), references.end(), page) == references.end());
        references.push_back(page);
      }
    } else if (!references.empty()) {
      const size_t at = random() % references.size();
      const PageId page = references[at];
      if (choice == 3) {
        pool.retain(page);
        references.push_back(page);
      } else {
        pool.release(page);
        references.erase(references.begin() + static_cast<std::ptrdiff_t>(at));
      }
    }
    const std::set<PageId> distinct(references.begin(), references.end());
    REQUIRE(pool.used_pages() == distinct.size());
    std::set<PageId> slabs;
    for (const PageId page : distinct) slabs.insert(page / 3);
    REQUIRE(pool.slab_count() == slabs.size());  // none without a used page
    REQUIRE(ledger.used(MemoryUse::kv) == slabs.size() * 3072);
    REQUIRE(device.live_bytes() == slabs.size() * 3072);
    if (!references.empty())
      REQUIRE(pool.references(references[0]) == std::count(references.begin(), references.end(), references[0]));
  }
  release(references);
  CHECK(state() == State{});
}

TEST_CASE_FIXTURE(Fixture, "pool: threads take and return pages, never the same one") {
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      PageTable table(pool);
      for (int i = 0; i < 150; ++i) {
        table.grow(static_cast<uint32_t>(1 + (i * 7 + t) % 9));
        for (const PageId page : table.pages()) std::memset(bytes_of(pool, page), t + 1, 1024);
        for (const PageId page : table.pages())
          if (bytes_of(pool, page)[1000] != std::byte(t + 1) || pool.references(page) != 1) ++wrong;
        table.truncate(static_cast<uint32_t>(i % 3));
      }
    });
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == 0);
  CHECK(state() == State{});
}

TEST_CASE_FIXTURE(Fixture, "table: growth moves no page and touches no byte of what is held") {
  PageTable table(pool);
  table.grow(12);
  for (const PageId page : table.pages()) std::memset(bytes_of(pool, page), static_cast<int>(page), 1024);
  const std::vector<PageId> pages = table.pages();
  const std::vector<uint64_t> addresses = addresses_of(table);
  // The history can neither be read nor written while the table grows: a copy would end the process.
  const auto protect = [&](int protection) {
    for (PageId page = 0; page < 12; page += 3) REQUIRE(mprotect(bytes_of(pool, page), 3 * 1024, protection) == 0);
  };
  const uint64_t allocations = device.allocations();
  protect(PROT_NONE);
  CHECK(table.grow(100) == 88);
  protect(PROT_READ | PROT_WRITE);
  CHECK(device.allocations() == allocations + 30);  // what is missing, and nothing for the history
  CHECK(std::equal(pages.begin(), pages.end(), table.pages().begin()));
  CHECK(std::equal(addresses.begin(), addresses.end(), table.addresses().begin()));
  for (const PageId page : pages)
    CHECK(std::count(bytes_of(pool, page), bytes_of(pool, page) + 1024, std::byte(page)) == 1024);
  check_books();
}

TEST_CASE_FIXTURE(Fixture, "table: it grows to what it is told, gives back what is behind, and ends with nothing") {
  {
    PageTable table(pool);
    CHECK((table.grow(5) == 5 && table.grow(5) == 0 && table.grow(2) == 0 && table.size() == 5));
    CHECK(pool.free_pages() < pool.slab_pages());
    for (uint32_t i = 0; i < table.size(); ++i) CHECK(table.addresses()[i] == pool.address(table.pages()[i]));
    const std::vector<PageId> pages = table.pages();
    table.truncate(9);
    CHECK(table.size() == 5);
    pool.retain(pages[4]);  // a fork still reads it
    table.truncate(2);
    CHECK((table.size() == 2 && table.addresses().size() == 2 && pool.used_pages() == 3));
    CHECK((pool.references(pages[4]) == 1 && pool.references(pages[3]) == 0));
    pool.release(pages[4]);
    CHECK(pool.slab_count() == 1);

    const PageTable moved(std::move(table));
    CHECK(moved.pages() == std::vector<PageId>{pages[0], pages[1]});
    CHECK((moved.addresses().size() == 2 && &moved.pool() == &pool && pool.references(pages[0]) == 1));
    check_books();
  }
  CHECK(state() == State{});
}

TEST_CASE_FIXTURE(Fixture, "table: a growth that fails at any allocation leaves table and pool as they were") {
  PageTable table(pool);
  table.grow(4);
  const State before = state();
  const std::vector<PageId> pages = table.pages();
  const std::vector<uint64_t> addresses = addresses_of(table);
  for (uint64_t nth = 1; nth <= 3; ++nth) {
    device.fail_at(nth, nth == 2);
    CHECK_THROWS(table.grow(15));
    CHECK(device.failures() == 1);
    CHECK((table.pages() == pages && addresses_of(table) == addresses && state() == before));
  }
  device.fail_at(0);
  CHECK_THROWS_AS(table.grow(1025), MemoryLimitError);  // the ledger holds 1024 pages
  CHECK((table.pages() == pages && addresses_of(table) == addresses && state() == before));
  CHECK(table.grow(15) == 11);
  check_books();
}

TEST_CASE_FIXTURE(Fixture, "pool: it asks for a slab of at least a page and a geometry that holds together") {
  CHECK_THROWS_AS(PagePool(device, ledger, small(), 0), ValueError);
  KvGeometry bad = small();
  bad.page_tokens = 24;
  CHECK_THROWS_AS(PagePool(device, ledger, bad, 3), ValueError);
}

TEST_CASE("geometry: a window keeps its pages and one more, and a step takes few") {
  KvGeometry g = small();
  for (const uint32_t window : {1u, 7u, 8u, 12u, 32u, 33u})
    for (uint64_t n = 0; n < 200; ++n) {
      g.window = window, g.step_tokens = 16;
      const uint64_t first = g.first_kept(n), kept = g.pages_for(n) - first;
      CHECK(kept <= g.pages_for(std::min<uint64_t>(n, window)) + 1);
      CHECK(g.rewindable_to(first) <= n);
      CHECK(first * g.page_tokens + std::min<uint64_t>(n, window) <= n);  // all that the last row sees
      for (uint64_t rows = 1; rows <= 16; ++rows) {                       // what rows from n on see and fill
        const uint64_t seen = (n - std::min<uint64_t>(n, window - 1)) / g.page_tokens;
        CHECK(g.pages_for(n + rows) - seen <= g.step_pages());
      }
      CHECK(g.most_pages(n) <= g.pages_for(n));
      CHECK(kept + std::min(g.pages_ahead(n, n + 1000), g.step_pages()) <= g.most_pages(n + 1000));
    }
  g.window = 0;
  CHECK((g.first_kept(1000) == 0 && g.most_pages(1000) == 125 && g.pages_ahead(12, 1000) == 123));
}

TEST_CASE_FIXTURE(Fixture,
                  "table: pages that a window has passed go, and those of a call are taken again and put back") {
  PageTable table(pool);
  table.grow(6);
  const std::vector<PageId> pages = table.pages();
  table.drop_before(2);
  CHECK((table.first() == 2 && table.held() == 4 && table.size() == 6 && pool.used_pages() == 4));
  CHECK((table.addresses()[0] == 0 && table.addresses()[1] == 0 && table.addresses()[2] == pool.address(pages[2])));

  // A call: pages 4 and 5 are its own; it rolls them twice, and fails.
  table.make_room(10);
  table.roll(4, 6, 8);
  CHECK(table.pages() ==
        std::vector<PageId>{kNoPage, kNoPage, pages[2], pages[3], kNoPage, kNoPage, pages[4], pages[5]});
  table.roll(4, 7, 9);
  CHECK((table.size() == 9 && table.held() == 4 && pool.used_pages() == 4));
  CHECK_THROWS_AS(table.roll(4, 7, 10), ConsistencyError);  // the others are still seen
  table.unroll(4, 6);
  CHECK((table.size() == 6 && table.held() == 4 && table.first() == 2));
  CHECK((table.pages()[2] == pages[2] && table.pages()[3] == pages[3]));
  CHECK(std::count(table.addresses().begin(), table.addresses().end(), uint64_t{0}) == 2);

  PageTable shared = table.share(5);
  CHECK((shared.first() == 2 && shared.held() == 3 && shared.shared(2) && !shared.shared(0)));
  shared.drop_before(7);  // past its end: holes
  CHECK((shared.size() == 7 && shared.held() == 0 && pool.used_pages() == 4));
  table.truncate(1);
  CHECK((table.first() == 1 && table.held() == 0 && pool.used_pages() == 0 && pool.slab_count() == 0));
}

}  // namespace foundry
