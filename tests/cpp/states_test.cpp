// States of recurrent layers: which are kept and which go, that none is written twice, and that pages and claims come
// out even whatever is committed, undone, shared and gone back to.
#include "kv/states.h"

#include <doctest/doctest.h>

#include <functional>
#include <random>
#include <string>

#include "base/error.h"
#include "device/host_buffer.h"
#include "device/unified.h"
#include "kv/consistency.h"
#include "kv/sequence.h"

namespace foundry {
namespace {

class HostMemory final : public Unified<DeviceMemory> {
 public:
  std::unique_ptr<Buffer> allocate(uint64_t bytes, MemoryKind kind) override { return make_host_buffer(bytes, kind); }
};

KvGeometry states_of(uint32_t kept) {
  KvGeometry g;
  g.n_layers = 3, g.state_bytes = 64, g.page_tokens = 8, g.tile_tokens = 8, g.kept_states = kept;
  return g;
}

KvGeometry pages() {
  KvGeometry g;
  g.n_layers = 1, g.n_kv_heads = 1, g.head_dim = 8, g.page_tokens = 8, g.tile_tokens = 8;
  return g;
}

struct Pool {
  explicit Pool(uint32_t kept) : pool(memory, ledger, states_of(kept), 2) {}
  HostMemory memory;
  MemoryLedger ledger{1 << 20};
  PagePool pool;
};

std::vector<uint32_t> positions(const States& states) {
  std::vector<uint32_t> found;
  for (const States::Kept& one : states.kept()) found.push_back(one.position);
  return found;
}

/// What a kernel would do: a state is its position, in each of its values.
void run(States& states, uint32_t first, uint32_t end) {
  uint32_t at = first;
  for (const StateRun& piece : states.runs(first, end)) {
    CHECK(piece.first_row == at - first);
    const uint64_t seen = piece.from == 0 ? 0 : *reinterpret_cast<const uint64_t*>(piece.from);
    CHECK(seen == at);
    at += piece.n_rows;
    *reinterpret_cast<uint64_t*>(piece.to) = at;
  }
  CHECK(at == end);
}

uint64_t value(const States& states, PageId page) { return *states.pool().span(page).as<uint64_t>(); }

/// All that is held has seen what it says.
void check_values(const States& states) {
  for (const States::Kept& one : states.kept()) CHECK(value(states, one.page) == one.position);
  if (states.running_position() != 0)
    CHECK(value(states, states.at(states.running_position())) == states.running_position());
}

void advance(States& states, uint32_t from, uint32_t end, uint32_t chunk) {
  states.begin(from, end);
  for (uint32_t at = from; at < end; at += chunk) run(states, at, std::min(end, at + chunk));
  states.commit(end);
}

struct Memory {
  HostMemory device;
  MemoryLedger ledger{1 << 20};
  ContextMemory memory;
  Memory(uint64_t prefix_bytes, uint32_t kept, uint64_t limit = 1 << 20)
      : ledger(limit), memory(device, ledger, {pages(), states_of(kept)}, 4096, 1, prefix_bytes, 0) {}
};

/// Rows of a call, and the state behind them by the same rule.
void feed(Sequence& sequence, const std::vector<int32_t>& tokens, uint32_t chunk = 5) {
  const auto position = static_cast<uint32_t>(sequence.tokens().size());
  const uint32_t replay = sequence.replay(position);
  Reservation rows = sequence.reserve(replay + tokens.size(), replay);
  const auto end = static_cast<uint32_t>(position + tokens.size());
  for (uint32_t at = rows.start(); at < end; at += chunk) {
    const uint32_t to = std::min(end, at + chunk);
    for (const StateRun& piece : rows.state_runs(at, to)) {
      CHECK((piece.from == 0 ? 0 : *reinterpret_cast<const uint64_t*>(piece.from)) == at + piece.first_row);
      *reinterpret_cast<uint64_t*>(piece.to) = at + piece.first_row + piece.n_rows;
    }
  }
  rows.commit(tokens);
  check_values(sequence.states());
  check_consistent(sequence.observe());
}

}  // namespace

TEST_CASE("states: the last two stay, ends of turns before others, and of those the fewer the further back") {
  std::vector<States::Kept> kept;
  for (uint32_t i = 1; i <= 5; ++i) kept.push_back({i * 8, i, false});
  CHECK(least_wanted(kept, 0) == 0);  // gaps are alike: the furthest goes
  CHECK(least_wanted(kept, 2) == 2);
  CHECK(least_wanted(kept, 3) == 5);
  kept[0].turn = true;
  CHECK(least_wanted(kept, 0) == 1);
  kept[1].turn = kept[2].turn = true;
  CHECK(least_wanted(kept, 0) == 0);  // ends of turns alone, beside the last two
  CHECK(least_wanted(std::span(kept).last(2), 0) == 2);

  Pool pool(6);
  States states(&pool.pool);
  advance(states, 0, 1000, 64);
  const std::vector<uint32_t> found = positions(states);
  REQUIRE(found.size() == 6);
  CHECK((found[5] == 1000 && found[4] == 992));
  for (size_t i = 2; i < found.size(); ++i) CHECK(found[i] - found[i - 1] <= found[i - 1] - found[i - 2]);
  CHECK(pool.pool.used_pages() == states.held());
  CHECK(states.held() == states.own());
  states.clear();
  CHECK(pool.pool.used_pages() == 0);
}

TEST_CASE("states: a token at a time, each page's end is kept as by a call of many, as far as there is room") {
  Pool pool(20);
  States by_one(&pool.pool), at_once(&pool.pool);
  for (uint32_t at = 0; at < 100; ++at) advance(by_one, at, at + 1, 1);
  advance(at_once, 0, 100, 33);
  CHECK(positions(by_one) == positions(at_once));
  CHECK(positions(by_one) == std::vector<uint32_t>{8, 16, 24, 32, 40, 48, 56, 64, 72, 80, 88, 96});
  check_values(by_one), check_values(at_once);
  // The one where it is, the next one's, and those that are kept.
  CHECK((by_one.held() == 14 && at_once.held() == 13));
}

TEST_CASE("states: what is undone has touched nothing, and what is rewound goes on from the nearest") {
  Pool pool(4);
  States states(&pool.pool);
  advance(states, 0, 29, 7);
  const std::vector<uint32_t> before = positions(states);
  CHECK(before == std::vector<uint32_t>{8, 16, 24});
  const uint64_t held = states.held(), used = pool.pool.used_pages();
  states.begin(29, 47);
  run(states, 29, 44);
  CHECK(states.written(44) == 40);
  states.undo();
  CHECK((positions(states) == before && states.running_position() == 29));
  CHECK((states.held() == held && pool.pool.used_pages() == used));
  check_values(states);
  CHECK((states.nearest(29) == 29 && states.nearest(28) == 24 && states.nearest(23) == 16 && states.nearest(7) == 0));
  CHECK_THROWS_AS(states.begin(27, 30), ConsistencyError);
  states.rewind(23);
  CHECK((positions(states) == std::vector<uint32_t>{8, 16} && states.nearest(23) == 16));
  advance(states, 16, 25, 3);
  CHECK(positions(states) == std::vector<uint32_t>{8, 16, 24});
  check_values(states);
  states.rewind(3);
  CHECK((positions(states).empty() && states.nearest(3) == 0 && states.at(0) == kNoPage));
}

TEST_CASE("states: a call that is short of memory changes nothing") {
  HostMemory memory;
  MemoryLedger ledger(5 * 3 * 64);
  PagePool pool(memory, ledger, states_of(4), 1);
  States states(&pool);
  advance(states, 0, 17, 17);
  const std::vector<uint32_t> before = positions(states);
  CHECK_THROWS_AS(states.begin(17, 80), MemoryLimitError);
  CHECK((positions(states) == before && states.running_position() == 17));
  advance(states, 17, 18, 1);
  check_values(states);
}

TEST_CASE("states: of a saved history's those are taken that are kept, ends of turns before others") {
  std::vector<SavedState> saved;
  for (uint32_t position = 8; position <= 80; position += 8)
    saved.push_back({position, position == 16 || position == 40});
  for (const uint32_t end : {80u, 83u}) {
    if (end != 80) saved.push_back({end, false});
    Pool pool(4);
    {
      States states(&pool.pool);
      states.take(saved);
      CHECK(positions(states) == std::vector<uint32_t>{16, 40, 72, 80});
      CHECK((states.kept()[0].turn && states.kept()[1].turn && !states.kept()[2].turn && !states.kept()[3].turn));
      CHECK((states.running_position() == end && states.at(end) != kNoPage));
      CHECK((states.held() == (end == 80 ? 4 : 5) && states.own() == states.held()));
      for (const uint32_t position : {16u, 40u, 72u, 80u, end})  // the caller's to read
        *states.pool().span(states.at(position)).as<uint64_t>() = position;
      advance(states, end, 97, 4);
      check_values(states);
      CHECK(positions(states) == std::vector<uint32_t>{16, 40, 88, 96});
    }
    CHECK((pool.pool.used_pages() == 0 && pool.ledger.total() == 0));
  }
  Pool few(2);
  States states(&few.pool);
  states.take({});
  CHECK((states.held() == 0 && states.running_position() == 0));
}

TEST_CASE("states: random programs over what shares them come out even") {
  for (const uint32_t kept : {2u, 3u, 7u}) {
    Pool pool(kept);
    std::mt19937 random(kept);
    std::vector<std::pair<std::unique_ptr<States>, uint32_t>> all;
    for (int round = 0; round < 3000; ++round) {
      if (all.empty() || (all.size() < 4 && random() % 8 == 0))
        all.emplace_back(std::make_unique<States>(&pool.pool), 0);
      const size_t which = random() % all.size();
      auto& [states, position] = all[which];
      switch (random() % 6) {
        case 0:
        case 1: {
          const uint32_t from = states->nearest(position), end = position + 1 + random() % 40;
          states->begin(from, end);
          run(*states, from, from + 1);
          if (random() % 3 == 0) {
            states->undo();
            break;
          }
          if (from + 1 < end) run(*states, from + 1, end);
          const uint64_t most = kept + 2 + 2;
          CHECK(states->held() <= most);
          states->commit(position = end);
          CHECK(states->kept().size() <= kept);
          break;
        }
        case 2:
          states->rewind(position = random() % (position + 1));
          break;
        case 3:
          states->mark_turn(position);
          break;
        case 4: {
          const size_t other = random() % all.size();
          if (other == which) break;
          states->share(*all[other].first);
          position = all[other].second;
          break;
        }
        default:
          if (random() % 4 == 0) all.erase(all.begin() + static_cast<std::ptrdiff_t>(which));
      }
      uint64_t own = 0;
      for (const auto& [one, at] : all) {
        check_values(*one);
        own += one->own();
        CHECK(one->own() <= one->held());
      }
      CHECK(own <= pool.pool.used_pages());
    }
    all.clear();
    CHECK(pool.pool.used_pages() == 0);
    CHECK(pool.ledger.total() == 0);
  }
}

TEST_CASE(
    "states: a sequence replays from the nearest, and its promise holds whatever forks and the prefix tree keep") {
  std::vector<int32_t> tokens(300);
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(i * 7 % 91);
  const auto part = [&](size_t from, size_t to) {
    return std::vector(tokens.begin() + static_cast<std::ptrdiff_t>(from),
                       tokens.begin() + static_cast<std::ptrdiff_t>(to));
  };
  Memory m(1 << 16, 3);
  {
    Sequence sequence(m.memory);
    sequence.promise(300);
    const uint64_t promised = m.memory.admission().promised_bytes();
    const uint64_t page = pages().page_bytes(), state = states_of(3).page_bytes();
    CHECK(promised == 38 * page + (5 + 2) * state);
    feed(sequence, part(0, 100));
    CHECK(m.memory.admission().promised_bytes() == promised);
    CHECK((sequence.replay(100) == 0 && sequence.replay(99) == 3 && sequence.replay(95) == 7));
    sequence.mark_turn();
    feed(sequence, part(100, 170));
    CHECK((sequence.replay(100) == 4));  // the end of the turn is still there
    CHECK(m.memory.admission().promised_bytes() == promised);
    const auto fork = sequence.fork();
    const uint64_t both = m.memory.admission().promised_bytes();
    CHECK(both <= promised + 38 * page + 2 * (5 + 2) * state);
    fork->rewind(130);
    const uint32_t replay = fork->replay(130);
    CHECK(fork->replay(130) == 130 - fork->states().nearest(130));
    feed(*fork, part(130, 300));
    CHECK(fork->tokens() == tokens);
    CHECK(replay <= 130);
    feed(sequence, part(170, 300));
    CHECK(m.memory.admission().promised_bytes() <= both + 38 * page);  // the fork has its own K and V now
    sequence.keep_prefix();
    const uint64_t kept = m.memory.prefixes().bytes();
    CHECK(kept == 37 * page + sequence.states().kept().size() * state);
    // One that begins alike goes on where a state is.
    Sequence next(m.memory);
    next.promise(300);
    CHECK(next.adopt_prefix(part(0, 299)) == 296);
    CHECK(next.replay(296) == 0);
    feed(next, part(296, 300));
    Sequence shorter(m.memory);
    const uint32_t found = shorter.adopt_prefix(part(0, 290));
    CHECK(found == 288);
    CHECK(shorter.states().nearest(288) == 288);
    // Snapshots go back.
    const auto before = next.snapshot();
    next.rewind(17);
    feed(next, part(17, 60));
    next.go_back(before);
    CHECK((next.tokens() == tokens && next.replay(300) == 0));
    check_values(next.states());
    check_consistent(next.observe());
  }
  while (m.memory.prefixes().evict_one()) {}
  CHECK(m.ledger.total() == 0);
  CHECK(m.memory.admission().promised_bytes() == 0);
}

TEST_CASE("states: what is promised is had in a memory that the prefix tree has filled") {
  // Room for two sequences of 200 tokens at their most, tables left out.
  const uint64_t most = 25 * pages().page_bytes() + 7 * states_of(3).page_bytes();
  Memory tables(0, 3);
  const uint64_t one = tables.memory.table_bytes(200);
  Memory m(1 << 20, 3, 2 * (most + one));
  std::mt19937 random(3);
  for (int round = 0; round < 60; ++round) {
    Sequence a(m.memory), b(m.memory);
    a.promise(200), b.promise(200);
    for (Sequence* sequence : {&a, &b}) {
      std::vector<int32_t> prompt(20 + random() % 60);
      for (int32_t& token : prompt) token = static_cast<int32_t>(random() % 3);
      sequence->adopt_prefix(prompt);
      while (sequence->tokens().size() + 40 < 200) {
        if (random() % 4 == 0) sequence->rewind(random() % (sequence->tokens().size() + 1));
        std::vector<int32_t> more(1 + random() % 40);
        for (int32_t& token : more) token = static_cast<int32_t>(random() % 3);
        feed(*sequence, more);
        sequence->mark_turn();
        if (random() % 2 == 0) sequence->keep_prefix();
      }
    }
  }
}

}  // namespace foundry
