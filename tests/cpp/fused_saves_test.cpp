// Saved histories belong to the graph as the model has it: how a device fuses it is told neither by bits nor by saves.
#include <doctest/doctest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include "base/error.h"
#include "cpp/fusing_device.h"
#include "cpp/graphs.h"
#include "engine/model.h"
#include "engine/session.h"

namespace foundry {
namespace {

using namespace test;

struct Way {
  std::string device;
  Fusion fusion;
};

/// The way in which the next device is made.
Way& way() {
  static Way chosen;
  return chosen;
}

std::unique_ptr<Device> make_fusing(const DeviceOptions& options) {
  return std::make_unique<FusingDevice>(make_device({way().device, options.threads, {}}), way().fusion);
}

constexpr Fusion kWays[] = {{false, false}, {true, false}, {true, true}};

struct Fixture {
  Graph graph = tiny(2);
  TinyFile file{graph};
  std::string folder;

  Fixture() {
    register_device("fusing", make_fusing);
    std::string pattern = (std::filesystem::temp_directory_path() / "foundry-saves-XXXXXX").string();
    REQUIRE(mkdtemp(pattern.data()) != nullptr);
    folder = pattern;
  }
  ~Fixture() { std::filesystem::remove_all(folder); }

  std::shared_ptr<CompiledModel> load(const std::string& device, const Fusion& fusion) const {
    way() = {device, fusion};
    ModelOptions options;
    options.device = {"fusing", 1, {}};
    options.page_tokens = 8;
    return CompiledModel::load(file.open(), graph, options, {});
  }
};

std::vector<float> feed(Session& session, std::span<const int32_t> tokens) {
  std::vector<float> logits;
  session.forward(tokens, LogitsOf::last,
                  [&](size_t, size_t, std::span<const float> row) { logits.assign(row.begin(), row.end()); }, {});
  return logits;
}

const std::vector<int32_t> kTokens{3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5}, kMore{8, 9};

}  // namespace

TEST_CASE_FIXTURE(Fixture, "saves: what was saved with one fusion goes on with every other, with the same bits") {
  for (const char* device : {"reference", "cpu"})
    for (const Fusion& saving : kWays) {
      const std::string path = folder + "/history";
      const auto session = Session::open(load(device, saving), {});
      feed(*session, kTokens);
      session->save(path);
      const std::vector<float> expected = feed(*session, kMore);
      for (const Fusion& restoring : kWays) {
        const auto restored = Session::restore(load(device, restoring), path, 0, 0);
        CHECK(restored->position() == kTokens.size());
        CHECK(feed(*restored, kMore) == expected);
      }
    }
}

TEST_CASE_FIXTURE(Fixture, "saves: another device's, or another graph's, are refused however they are fused") {
  const std::string path = folder + "/history";
  const auto session = Session::open(load("cpu", {true, true}), {});
  feed(*session, kTokens);
  session->save(path);
  expect_error<ModelFormatError>([&] { Session::restore(load("reference", {true, true}), path, 0, 0); },
                                 {"device", "reference"});
  Graph other = graph;
  op(other, "layer 1 attention").as<AttentionOp>()->scale *= 2;
  std::swap(graph, other);
  expect_error<ModelFormatError>([&] { Session::restore(load("cpu", {true, true}), path, 0, 0); }, {"model"});
}

}  // namespace foundry
