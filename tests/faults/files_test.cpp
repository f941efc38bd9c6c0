// Every allocation, map, open and read fails once, in turn, while models of each kind of file are planned, loaded and
// used: the error is typed, a model that was loaded before goes on with the same bits, and the same call then succeeds.
#include <doctest/doctest.h>

#include "base/error.h"
#include "cpp/devices.h"
#include "engine/model.h"
#include "engine/session.h"
#include "faults/faults.h"
#include "faults/kinds_of_files.h"

namespace foundry {
namespace {

/// Rows of 256, for those are whole blocks of Q4_K.
const Graph& graph() {
  static const Graph g = [] {
    test::TinyShape shape;
    shape.hidden = 256, shape.ffn = 256, shape.heads = 4, shape.kv_heads = 2, shape.head_dim = 64, shape.layers = 1;
    return test::tiny_graph(shape);
  }();
  return g;
}

ModelOptions options() {
  ModelOptions options;
  options.device = {test::device(), 1};
  options.page_tokens = 8, options.slab_pages = 2, options.chunk_tokens = 16;
  return options;
}

using Values = std::vector<float>;

Values logits_of(const std::shared_ptr<CompiledModel>& model) {
  const auto session = Session::open(model, {0, 8, 0});
  Values logits;
  logits.reserve(4096);
  session->forward(std::vector<int32_t>{1, 2, 3}, LogitsOf::last,
                   [&](size_t, size_t, std::span<const float> row) { logits.assign(row.begin(), row.end()); }, {});
  return logits;
}

Values planned(const test::FilesOfAKind& files) {
  const PlannedBytes plan = CompiledModel::plan_file(files.open(true), graph(), options(), {16, 64, 0}, 2);
  return {static_cast<float>(plan.total), static_cast<float>(plan.needed), static_cast<float>(plan.kv_reserved)};
}

Values loaded(const test::FilesOfAKind& files) {
  return logits_of(CompiledModel::load(files.open(false), graph(), options(), {}));
}

/// A hash of all bytes, in a whole number of 24 bits, which f32 holds.
Values fingerprinted(const test::FilesOfAKind& files) {
  return {static_cast<float>(files.open(false)->fingerprint() & 0xffffff)};
}

}  // namespace

TEST_CASE("faults: plans, loads and hashes of each kind of file fail with typed errors, and then succeed") {
  size_t faults = 0;
  for (const test::Kind kind : {test::Kind::split, test::Kind::k_quant, test::Kind::directory, test::Kind::arranged}) {
    const test::FilesOfAKind files(kind, graph());
    const auto before = CompiledModel::load(files.open(false), graph(), options(), {});
    const Values same = logits_of(before);
    for (const auto& call : {planned, loaded, fingerprinted}) {
      CAPTURE(static_cast<int>(kind));
      const Values expected = call(files);
      int64_t nth = 0, failures = 0;
      for (;; ++nth) {
        Values found;
        bool failed = false;
        faults::arm(nth);
        try {
          found = call(files);
        } catch (const ModelFormatError& error) {
          FAIL("a shortage was taken for the file's fault: ", error.what());
        } catch (const Error&) {
          failed = true;
        } catch (const std::bad_alloc&) {
          failed = true;
        }
        faults::disarm();
        if (!faults::fired()) {
          CHECK(found == expected);
          break;
        }
        ++faults, failures += failed;
        if (failed) found = call(files);
        REQUIRE_MESSAGE(found == expected, "other bits after fault ", nth);
        if (nth % 16 == 0) REQUIRE(logits_of(before) == same);
      }
      CHECK(failures > 2);
      REQUIRE(logits_of(before) == same);
      REQUIRE(before->ledger().used(MemoryUse::kv) == 0);
    }
  }
  MESSAGE(faults << " faults");
  CHECK(faults > 300);
}

}  // namespace foundry
