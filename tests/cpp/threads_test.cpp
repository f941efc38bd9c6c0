// Sessions of one model stepped, forked, cancelled, saved and closed from several threads: under the thread sanitizer this shows
// races, and everywhere that each history keeps its bits and everything is given back.
#include <doctest/doctest.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <filesystem>
#include <random>
#include <thread>

#include "base/error.h"
#include "cpp/devices.h"
#include "cpp/tiny_llama.h"
#include "engine/model.h"
#include "engine/session.h"

namespace foundry {
namespace {

constexpr int kThreads = 4, kRounds = 60;

std::vector<int32_t> ids(size_t n, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<int32_t> result(n);
  for (int32_t& id : result) id = static_cast<int32_t>(random() % 96);
  return result;
}

std::vector<float> forward(Session& s, std::span<const int32_t> tokens) {
  std::vector<float> logits;
  s.forward(tokens, LogitsOf::last,
            [&](size_t, size_t, std::span<const float> row) { logits.assign(row.begin(), row.end()); }, {});
  return logits;
}

void everything_at_once(uint32_t window) {
  test::TinyShape shape;
  shape.window = window, shape.full_every = window == 0 ? 1 : 2;
  const Graph graph = test::tiny_graph(shape);
  const test::TinyFile file(graph);
  ModelOptions options;
  options.device = {test::device(), 2};
  options.page_tokens = 8, options.slab_pages = 3, options.chunk_tokens = 16, options.prefix_cache_bytes = 20'000;
  const auto model = CompiledModel::load(file.open(), graph, options, {});
  const auto folder = std::filesystem::temp_directory_path() / ("foundry-threads-" + std::to_string(::getpid()));
  std::filesystem::create_directories(folder);

  const std::vector<int32_t> common = ids(45, 1);
  std::vector<std::vector<int32_t>> own;
  std::vector<std::vector<float>> expected;
  for (int t = 0; t < kThreads; ++t) {
    own.push_back(ids(37, 10 + static_cast<uint32_t>(t)));
    const auto alone = Session::open(model, {0, 0, 0});
    forward(*alone, common);
    expected.push_back(forward(*alone, own.back()));
  }

  const auto parent = Session::open(model, {0, 0, 0});
  forward(*parent, common);
  std::atomic<int> wrong{0}, cancelled{0};
  std::atomic<bool> done{false};
  std::vector<std::shared_ptr<Session>> shown(kThreads);  // to the thread that cancels
  for (auto& session : shown) session = Session::open(model, {0, 0, 0});

  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t)
    threads.emplace_back([&, t] {
      const std::string path = (folder / (std::to_string(t) + ".kv")).string();
      for (int round = 0; round < kRounds; ++round) {
        const auto child = parent->fork();
        if (forward(*child, own[t]) != expected[t]) ++wrong;
        child->save(path);
        child->rewind(std::max(child->figures().rewindable_to,
                               static_cast<uint32_t>(common.size()) + static_cast<uint32_t>(round % 37)));
        const auto again = Session::restore(model, path, 20, 0);
        if (again->position() != common.size() + own[t].size()) ++wrong;
        again->rewind(window == 0 ? static_cast<uint32_t>(common.size()) : 0);
        if (window != 0) forward(*again, common);
        if (forward(*again, own[t]) != expected[t]) ++wrong;
        const auto fresh = Session::open(model, {8, 100, 0});
        const auto answer = fresh->generate(common, {3, {}, {}}, {});
        while (answer->next({}).finish == Finish::none) {}
        (void)fresh->observe();
        child->close();
        try {
          shown[t]->rewind(0);
          forward(*shown[t], common);
        } catch (const CancelledError&) {
          ++cancelled;
          if (shown[t]->position() != 0) ++wrong;
        }
      }
    });
  std::thread canceller([&] {
    while (!done) {
      for (const auto& session : shown) session->cancel();
      std::this_thread::yield();
    }
  });
  for (std::thread& thread : threads) thread.join();
  while (cancelled == 0) {  // in case none of so many came in time
    try {
      shown[0]->rewind(0);
      forward(*shown[0], common);
    } catch (const CancelledError&) {
      ++cancelled;
    }
  }
  done = true;
  canceller.join();
  CHECK(wrong == 0);
  CHECK(cancelled > 0);
  shown.clear();
  parent->close();
  while (model->memory().prefixes().evict_one()) {}
  CHECK(model->ledger().used(MemoryUse::kv) == 0);
  CHECK(model->memory().admission().promised_bytes() == 0);
  std::filesystem::remove_all(folder);
}

TEST_CASE("threads: batches over shared sessions lock in one order") {
  const Graph graph = test::tiny_graph({});
  const test::TinyFile file(graph);
  ModelOptions options;
  options.device = {test::device(), 1};
  options.page_tokens = 8;
  const auto model = CompiledModel::load(file.open(), graph, options, {});
  const auto a = Session::open(model, {0, 0, 0}), b = Session::open(model, {0, 0, 0});
  const std::vector<int32_t> token{5};
  const auto batches = [&](Session* first, Session* second) {
    for (int i = 0; i < 60; ++i) {
      const std::array items{BatchItem{first, token}, BatchItem{second, token}};
      Session::forward(*model, items, LogitsOf::last, [](size_t, size_t, std::span<const float>) {}, {});
    }
  };
  std::thread one([&] { batches(a.get(), b.get()); }), two([&] { batches(b.get(), a.get()); });
  one.join();
  two.join();
  CHECK(a->position() == 120);
  CHECK(b->position() == 120);
}

}  // namespace

TEST_CASE("threads: everything at once, and every history keeps its bits") { everything_at_once(0); }

TEST_CASE("threads: everything at once, with layers that have a window") { everything_at_once(24); }

}  // namespace foundry
