// The consistency asserts: each figure that kernels are given, or that is compared with one, is bent in turn where it lies. The assert
// names two figures that differ; a step that would run on them fails before it runs.
#include "kv/consistency.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <functional>
#include <string>

#include "base/error.h"
#include "cpp/devices.h"
#include "cpp/tiny_llama.h"
#include "engine/session.h"

namespace foundry {

struct SequenceTester {
  static SequenceParams& global(Session& s, size_t group) { return s.sequence_->globals_.at(group); }
  static PageTable& table(Session& s, size_t group) { return s.sequence_->tables_.at(group); }
  static MemoryLedger& ledger(Session& s) { return s.model_->ledger_; }
};

namespace {

using T = SequenceTester;

struct World {
  Graph graph;
  test::TinyFile file;
  std::shared_ptr<CompiledModel> model;
  std::shared_ptr<Session> session;

  static test::TinyShape shape() {
    test::TinyShape shape;
    shape.window = 32, shape.full_every = 2;  // two layer groups
    return shape;
  }
  World() : graph(test::tiny_graph(shape())), file(graph) {
    ModelOptions options;
    options.device = {test::device(), 1};
    options.page_tokens = 8, options.check_every_step = true;
    model = CompiledModel::load(file.open(), graph, options, {});
    session = Session::open(model, {20, 20, 1});
  }
};

std::string fault(const std::function<void()>& call) {
  try {
    call();
  } catch (const ConsistencyError& error) {
    return error.what();
  }
  return "none";
}

const LogitsSink nowhere = [](size_t, size_t, std::span<const float>) {};

TEST_CASE("a bent figure is seen") {
  struct Bend {
    const char* named[2];
    std::function<void(Session&, size_t)> bend;
    std::function<void(Session&)> undo{};  // where the model's end would stumble over it
  };
  const std::vector<Bend> bends = {
      {{"encoded.max_seq_len is 25", "the model's is 24"},
       [](Session& s, size_t g) { T::global(s, g).max_seq_len += 1; }},
      {{"encoded.max_seq_len is 16", "the model's is 24"},
       [](Session& s, size_t g) { T::global(s, g).max_seq_len -= 8; }},
      {{"encoded.pages is", "table.pages_at is"}, [](Session& s, size_t g) { T::global(s, g).pages += 8; }},
      {{"encoded.n_pages is 4", "table.pages is 3"}, [](Session& s, size_t g) { T::global(s, g).n_pages += 1; }},
      {{"encoded.first_page is 1", "table.first is 0"}, [](Session& s, size_t g) { T::global(s, g).first_page += 1; }},
      {{"encoded.n_pages is 3", "table.pages is 4"},
       [](Session& s, size_t g) {
         T::table(s, g).grow(4);  // a page that nobody told the kernels of
         T::global(s, g).pages = T::table(s, g).addresses_at();
       }},
      {{"encoded.first_page is 0", "table.first is 1"}, [](Session& s, size_t g) { T::table(s, g).drop_before(1); }},
      {{"ledger.kv_bytes is", "sum of pool.slab_lengths is"},
       [](Session& s, size_t) { T::ledger(s).charge(MemoryUse::kv, 64); },
       [](Session& s) { T::ledger(s).credit(MemoryUse::kv, 64); }},
      {{"ledger.kv_bytes is", "sum of pool.slab_lengths is"},
       [](Session& s, size_t) { T::ledger(s).credit(MemoryUse::kv, 64); },
       [](Session& s) { T::ledger(s).charge(MemoryUse::kv, 64); }},
  };
  for (const Bend& one : bends)
    for (const size_t group : {0, 1}) {
      World world;
      Session& s = *world.session;
      CHECK(fault([&] { s.check(); }) == "none");
      one.bend(s, group);
      const std::string found = fault([&] { s.check(); });
      for (const char* name : one.named) CHECK_MESSAGE(found.find(name) != std::string::npos, found);
      if (one.undo) one.undo(s);
    }
}

TEST_CASE("a step that would run on figures that disagree does not run, and nothing commits") {
  World world;
  Session& s = *world.session;
  T::ledger(s).charge(MemoryUse::kv, 64);
  const std::string found = fault([&] { s.check(); });
  const std::vector<int32_t> tokens{1, 2};
  CHECK(found != "none");
  CHECK(fault([&] { s.forward(tokens, LogitsOf::last, nowhere, {}); }).find("ledger.kv_bytes") != std::string::npos);
  CHECK(fault([&] { s.score(tokens, {}); }).find("ledger.kv_bytes") != std::string::npos);
  CHECK(fault([&] { s.generate(tokens, {5, {}, {}}, {}); }).find("ledger.kv_bytes") != std::string::npos);
  CHECK(s.position() == 0);
  const auto other = Session::open(world.model, {0, 0, 1});
  const std::vector<BatchItem> batch{{other.get(), tokens}, {&s, tokens}};
  CHECK(fault([&] { Session::forward(*world.model, batch, LogitsOf::last, nowhere, {}); }).find("ledger") !=
        std::string::npos);
  CHECK(other->position() == 0);
  T::ledger(s).credit(MemoryUse::kv, 64);
  s.forward(tokens, LogitsOf::last, nowhere, {});
  CHECK(s.position() == 2);
}

TEST_CASE("steps that grow a sequence are checked without being asked") {
  World world;
  world.model->set_check_every_step(false);
  Session& s = *world.session;
  T::ledger(s).charge(MemoryUse::kv, 64);
  CHECK(fault([&] { s.forward(std::vector<int32_t>{1, 2}, LogitsOf::last, nowhere, {}); }) == "none");
  CHECK(fault([&] { s.forward(std::vector<int32_t>(40, 3), LogitsOf::last, nowhere, {}); }) != "none");
  CHECK(s.position() == 2);
  T::ledger(s).credit(MemoryUse::kv, 64);
  s.forward(std::vector<int32_t>(40, 3), LogitsOf::last, nowhere, {});
  CHECK(s.position() == 42);
}

TEST_CASE("every figure is compared with another") {
  World world;
  world.session->forward(std::vector<int32_t>(70, 1), LogitsOf::last, nowhere, {});
  const Sequence::Observed right = world.session->observe();
  check_consistent(right);
  using Group = Sequence::Observed::Group;
  for (const auto figure : {&Sequence::Observed::ledger_kv_bytes, &Sequence::Observed::max_seq_len,
                            &Sequence::Observed::capacity, &Sequence::Observed::position}) {
    Sequence::Observed bent = right;
    bent.*figure = figure == &Sequence::Observed::max_seq_len ? 10 : bent.*figure + 1000;
    CHECK(fault([&] { check_consistent(bent); }) != "none");
  }
  for (size_t g = 0; g < right.groups.size(); ++g) {
    for (const auto figure : {&Group::encoded_pages, &Group::table_pages_at, &Group::encoded_max_seq_len,
                              &Group::encoded_n_pages, &Group::encoded_first_page, &Group::encoded_page_tokens,
                              &Group::encoded_page_bytes, &Group::table_pages, &Group::table_first, &Group::table_held,
                              &Group::table_addresses, &Group::table_nulls, &Group::slab_bytes, &Group::used_pages}) {
      Sequence::Observed bent = right;
      bent.groups[g].*figure += 1000;
      CHECK(fault([&] { check_consistent(bent); }) != "none");
    }
    Sequence::Observed bent = right;
    bent.groups[g].slab_lengths.at(0) += 1000;
    CHECK(fault([&] { check_consistent(bent); }) != "none");
  }
}

}  // namespace
}  // namespace foundry
