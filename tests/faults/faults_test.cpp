// Every allocation, map, open, read and write fails once, in turn, under every call of a session: the error is typed,
// nothing else has changed, nothing leaks (run it under the address sanitizer), and the same call then succeeds with
// the same bits. And a process killed at every point of a save leaves the old file or the new, whole, and nothing else
// once the next save is done.
#include "faults/faults.h"

#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <utility>

#include "base/error.h"
#include "base/input_file.h"
#include "cpp/devices.h"
#include "cpp/tiny_llama.h"
#include "engine/embedding.h"
#include "engine/model.h"
#include "engine/session.h"

namespace foundry {
namespace {

struct World;
using Call = std::function<std::vector<float>(World&)>;

bool recurrent = false;  // which of the two models

/// Every fault, or with FOUNDRY_FAULT_STEP=n each n-th, where a run takes ten times as long.
int64_t fault_step() {
  const char* step = std::getenv("FOUNDRY_FAULT_STEP");
  return step == nullptr ? 1 : std::stoll(step);
}

/// One layer sees everything, the other the last 12 tokens: a call of 70 in steps of 16 takes the window's pages again.
/// One of them has experts. Of the recurrent model one layer is a delta net in place of that.
const Graph& graph() {
  const auto made = [](bool convolves) {
    test::TinyShape shape;
    if (convolves)
      shape.convolve = 1, shape.delta = true;
    else
      shape.window = 12, shape.full_every = 2;
    shape.experts = 3, shape.experts_from = 1;
    return test::tiny_graph(shape);
  };
  static const Graph graphs[] = {made(false), made(true)};
  return graphs[recurrent ? 1 : 0];
}
const test::TinyFile& file() {
  static std::map<bool, test::TinyFile> files;
  return files.try_emplace(recurrent, graph()).first->second;
}

std::vector<int32_t> ids(size_t n, uint32_t seed = 5) {
  std::mt19937 random(seed);
  std::vector<int32_t> result(n);
  for (int32_t& id : result) id = static_cast<int32_t>(random() % 96);
  return result;
}

/// A model, a session with a history, a fork of it, a saved file: made anew for each fault.
struct World {
  std::string folder =
      (std::filesystem::temp_directory_path() / ("foundry-faults-" + std::to_string(::getpid()))).string();
  std::string path = folder + "/chat.kv";
  std::shared_ptr<CompiledModel> model;
  std::shared_ptr<Session> session, fork, restored, extra;

  World() {
    std::filesystem::create_directories(folder);
    ModelOptions options;
    options.device = {test::device(), 1};
    options.page_tokens = 8, options.slab_pages = 2, options.chunk_tokens = 16;
    // Of three experts two are packed at once.
    options.expert_cache_bytes = CompiledModel::plan_file(file().open(), graph(), options, {}, 0).experts * 2 / 3;
    model = CompiledModel::load(file().open(), graph(), options, {});
    session = Session::open(model, {16, 64, 0});
    forward(*session, ids(21));
    session->save(path);
    restored = Session::restore(model, path, 10, 0);
    fork = session->fork();
  }
  ~World() { std::filesystem::remove_all(folder); }

  static std::vector<float> forward(Session& s, const std::vector<int32_t>& tokens) {
    std::vector<float> logits;
    logits.reserve(4096);
    s.forward(tokens, LogitsOf::last,
              [&](size_t, size_t, std::span<const float> row) { logits.assign(row.begin(), row.end()); }, {});
    return logits;
  }

  /// Everything that a failed call must leave as it was.
  std::string state() const {
    std::string text;
    for (const auto& s : {session, fork, restored}) {
      if (s == nullptr) continue;
      text += std::to_string(s->position()) + " " + std::to_string(s->figures().capacity) + " " +
              std::to_string(s->figures().promised) + " " + std::to_string(s->figures().kv_bytes) + " " +
              std::to_string(s->figures().pages_added) + (s->closed() ? " closed" : "");
      for (const int32_t token : s->tokens()) text += " " + std::to_string(token);
      text += "; ";
    }
    std::ifstream saved(path, std::ios::binary);
    return text + std::string(std::istreambuf_iterator<char>(saved), {});
  }
  uint64_t promised() const { return model->memory().admission().promised_bytes(); }
};

struct Named {
  const char* name;
  Call call;
};

const std::vector<Named>& calls() {
  static const std::vector<Named> all = {
      {"load",
       [](World& w) {
         ModelOptions options;
         options.device = {test::device(), 1};
         w.extra = Session::open(CompiledModel::load(file().open(), graph(), options, {}), {0, 8, 0});
         return World::forward(*w.extra, {1, 2, 3});
       }},
      {"session",
       [](World& w) {
         w.extra = Session::open(w.model, {40, 80, 0});
         return World::forward(*w.extra, {1, 2, 3});
       }},
      {"forward and grow", [](World& w) { return World::forward(*w.restored, ids(70, 2)); }},
      {"write to a shared page", [](World& w) { return World::forward(*w.fork, {7}); }},
      {"batch",
       [](World& w) {
         std::vector<float> logits;
         logits.reserve(4096);
         const std::vector<int32_t> a = ids(30, 3), b = {4}, c = {5, 6};
         const std::array items{BatchItem{w.session.get(), a}, BatchItem{w.fork.get(), b},
                                BatchItem{w.restored.get(), c}};
         Session::forward(
             *w.model, items, LogitsOf::last,
             [&](size_t, size_t, std::span<const float> row) { logits.insert(logits.end(), row.begin(), row.end()); },
             {});
         return logits;
       }},
      {"embed",
       [](World& w) {
         const std::vector<int32_t> a = ids(9, 7), b = ids(30, 8);
         const std::array<std::span<const int32_t>, 2> texts{a, b};
         std::vector<float> rows(2 * w.model->arch().hidden_size);
         embed_texts(w.model, texts, Pooling::mean, rows.data(), {});
         return rows;
       }},
      {"score", [](World& w) { return w.session->score(ids(20, 4), {}); }},
      {"generate",
       [](World& w) {
         const auto answer = w.session->generate(ids(5, 6), {4, {}, {}}, {});
         std::vector<float> tokens;
         tokens.reserve(16);
         for (Generation::Next next = answer->next({}); next.finish == Finish::none; next = answer->next({}))
           tokens.push_back(static_cast<float>(next.token));
         return tokens;
       }},
      {"generate with penalties",
       [](World& w) {
         Sampling sampling;
         sampling.repetition_penalty = 1.2f, sampling.frequency_penalty = 0.1f, sampling.dry.multiplier = 1;
         const auto answer = w.session->generate(ids(5, 6), {6, sampling, {}}, {});
         std::vector<float> tokens;
         tokens.reserve(16);
         for (;;) {
           Generation::Next next;
           try {
             next = answer->next({});
           } catch (const std::exception&) {  // asked again, it gives the token that it owes
             next = answer->next({});
           }
           if (next.finish != Finish::none) return tokens;
           tokens.push_back(static_cast<float>(next.token));
         }
       }},
      {"fork",
       [](World& w) {
         w.extra = w.session->fork();
         return World::forward(*w.extra, {9});
       }},
      {"fork of what is restored",
       [](World& w) {
         w.extra = w.restored->fork();
         return World::forward(*w.extra, {9});
       }},
      {"reserve",
       [](World& w) {
         w.session->reserve(200);
         return std::vector<float>{};
       }},
      {"rewind",
       [](World& w) {
         w.fork->rewind(3);
         return World::forward(*w.fork, {9});
       }},
      {"save",
       [](World& w) {
         w.session->save(w.path);
         return std::vector<float>{};
       }},
      {"restore",
       [](World& w) {
         w.extra = Session::restore(w.model, w.path, 5, 0);
         return World::forward(*w.extra, {9});
       }},
  };
  return all;
}

bool is_generation(const std::string& name) { return name.find("generate") == 0; }
/// Calls that are several: what the first of them did may stand when the second fails.
bool is_one_call(const std::string& name) { return name != "rewind" && !is_generation(name); }

}  // namespace

TEST_CASE("faults: every failure is typed, changes nothing, and the retry succeeds") {
  size_t faults = 0;
  std::vector<std::pair<Named, bool>> all;
  for (const bool one : {false, true})
    for (const Named& named : calls()) all.emplace_back(named, one);
  for (const auto& [named, one] : all) {
    CAPTURE(named.name);
    CAPTURE(one);
    recurrent = one;
    std::vector<float> expected;
    {
      World world;
      expected = named.call(world);
    }
    for (int64_t nth = 0, step = fault_step();; nth += step) {
      World world;
      const std::string before = world.state();
      const uint64_t promised = world.promised();
      std::vector<float> found;
      bool failed = false;
      faults::arm(nth);
      try {
        found = named.call(world);
      } catch (const Error&) {
        failed = true;
      } catch (const std::bad_alloc&) {
        failed = true;
      }
      faults::disarm();
      if (!faults::fired()) {
        CHECK(nth > 0);
        CHECK(found == expected);
        break;
      }
      ++faults;
      if (failed) {
        world.extra = nullptr;
        if (is_one_call(named.name)) {
          REQUIRE_MESSAGE(world.state() == before, named.name, ": after fault ", nth);
          uint64_t slabs = world.model->memory().pools()[0]->slab_bytes();
          if (recurrent) slabs += world.model->memory().states()->slab_bytes();
          REQUIRE_MESSAGE(world.promised() <= promised + 2 * slabs, named.name);
        }
        if (!is_generation(named.name)) found = named.call(world);
      }
      if (failed && is_generation(named.name)) continue;
      REQUIRE_MESSAGE(found == expected, named.name, ": other bits after fault ", nth);
      // Everything goes back.
      const auto model = world.model;
      world.session = world.fork = world.restored = world.extra = nullptr;
      REQUIRE(model->ledger().used(MemoryUse::kv) == 0);
      REQUIRE(model->memory().admission().promised_bytes() == 0);
    }
  }
  recurrent = false;
  MESSAGE(faults << " faults in " << all.size() << " calls");
  CHECK(faults > 1000);
}

TEST_CASE("faults: a shortage of the system's is not the file's fault") {
  const std::string path =
      (std::filesystem::temp_directory_path() / ("foundry-shortage-" + std::to_string(::getpid()))).string();
  std::ofstream(path, std::ios::binary) << std::string(4096, 'x');
  const auto errno_of = [&](int64_t nth, const auto& call) {
    faults::arm(nth);
    int code = 0;
    try {
      call();
    } catch (const IoError& error) {
      CHECK(error.path == path);
      CHECK(std::string(error.what()) == path + ": " + error.reason);
      code = error.code;
    } catch (const MemoryLimitError& error) {
      code = ENOMEM;
      CHECK(error.needed_bytes == 4096);
    } catch (const std::bad_alloc&) {
      code = -1;
    } catch (const ModelFormatError&) {
      code = -2;
    }
    faults::disarm();
    return code;
  };
  std::vector<int> seen;
  for (int64_t nth = 0;; ++nth) {
    seen.push_back(errno_of(nth, [&] { GgufFile::open(path); }));
    if (!faults::fired()) break;
  }
  CHECK(std::count(seen.begin(), seen.end(), EMFILE) == 1);
  CHECK(std::count(seen.begin(), seen.end(), ENOMEM) == 1);
  CHECK(seen.back() == -2);  // no fault was left: it is no GGUF file
  CHECK(std::count(seen.begin(), seen.end(), -2) == 1);
  const InputFile file(path);
  std::vector<std::byte> room(16);
  CHECK(errno_of(0, [&] { file.read(0, room); }) == EIO);
  std::filesystem::remove(path);
}

TEST_CASE(
    "faults: a process killed at every point of a save leaves the old file or the new, whole, and no part of one") {
  size_t deaths = 0, olds = 0, news = 0, parts = 0;
  for (const faults::How how : {faults::How::kill, faults::How::kill_mid})
    for (int64_t nth = 0;; ++nth) {
      World world;
      World::forward(*world.session, ids(40, 8));
      const pid_t child = ::fork();
      if (child == 0) {
        faults::arm(nth, how);
        world.session->save(world.path);
        ::_exit(0);
      }
      int status = 0;
      ::waitpid(child, &status, 0);
      REQUIRE(WIFEXITED(status));
      const auto there = Session::restore(world.model, world.path, 0, 0);
      REQUIRE((there->position() == 21 || there->position() == 61));
      CHECK_NOTHROW(World::forward(*there, {1}));  // reads and checks every page
      (there->position() == 22 ? olds : news) += 1;
      const auto listed = [&] {
        std::vector<std::string> names;
        for (const auto& entry : std::filesystem::directory_iterator(world.folder))
          names.push_back(entry.path().filename().string());
        return names;
      };
      parts += listed().size() - 1;
      world.session->save(nth % 2 == 0 ? world.path : world.folder + "/new.kv");
      std::filesystem::remove(world.folder + "/new.kv");
      REQUIRE(listed() == std::vector<std::string>{"chat.kv"});
      if (WEXITSTATUS(status) == 0) break;
      REQUIRE(WEXITSTATUS(status) == 9);
      ++deaths;
    }
  MESSAGE(deaths << " deaths: " << olds << " old files, " << news << " new, " << parts
                 << " parts left until the next save");
  CHECK(deaths > 40);
  CHECK(olds > 20);
  CHECK(news > 1);
  CHECK(parts > 10);
}

}  // namespace foundry
