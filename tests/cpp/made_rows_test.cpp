// A model whose matrices are made when they are read, on devices that make rows themselves, that are given a copy, and
// that read weights in place: the bits of the file that has them as they are, and the plan is what is held.
#include <doctest/doctest.h>

#include <cstring>

#include "cpp/devices.h"
#include "cpp/fusing_device.h"
#include "cpp/graphs.h"
#include "engine/model.h"
#include "engine/session.h"

namespace foundry {
namespace {

using namespace test;

class Rows final : public MadeRows {
 public:
  explicit Rows(WeightView of) : of_(std::move(of)) {}
  bool whole() const override { return true; }
  void rows(uint64_t first, uint64_t n, std::byte* to) const override {
    const uint64_t row = of_.bytes / of_.rows;
    std::memcpy(to, of_.data + first * row, n * row);
  }
  void advise(uint64_t, uint64_t, Need) const override {}

 private:
  WeightView of_;
};

/// A file of whose matrices none lies as it is, but the embedding.
class Making final : public WeightSource {
 public:
  explicit Making(std::shared_ptr<const WeightSource> file) : file_(std::move(file)) {}
  const std::string& path() const override { return file_->path(); }
  std::vector<std::string_view> names() const override { return file_->names(); }
  bool has(std::string_view name) const override { return file_->has(name); }
  WeightView view(std::string_view name) const override {
    WeightView view = file_->view(name);
    if (view.name == "token_embd.weight") return view;
    view.made = std::make_shared<Rows>(view);
    view.data = nullptr, view.offset = 0;
    return view;
  }
  uint64_t fingerprint() const override { return file_->fingerprint(); }
  void advise(const std::byte* data, uint64_t bytes, Need need) const override { file_->advise(data, bytes, need); }

 private:
  std::shared_ptr<const WeightSource> file_;
};

/// The processor, as a device that packs but has to be given what it packs.
class Given final : public FusingDevice {
 public:
  using FusingDevice::FusingDevice;
  const DeviceInfo& info() const override { return info_; }

 private:
  DeviceInfo info_ = [this] {
    DeviceInfo info = FusingDevice::info();
    info.makes_rows = false;
    return info;
  }();
};

std::vector<float> logits_of(const std::shared_ptr<CompiledModel>& model) {
  const auto session = Session::open(model, {});
  std::vector<float> logits;
  session->forward(
      std::vector<int32_t>{1, 2, 3, 4, 5}, LogitsOf::all,
      [&](size_t, size_t, std::span<const float> row) { logits.insert(logits.end(), row.begin(), row.end()); }, {});
  return logits;
}

}  // namespace

TEST_CASE("made rows: the bits and the plan of every kind of device") {
  register_device("given rows", [](const DeviceOptions& options) -> std::unique_ptr<Device> {
    return std::make_unique<Given>(make_device({"cpu", options.threads, {}}), Fusion{true, false});
  });
  const Graph graph = tiny();
  const TinyFile file(graph);
  for (const std::string& name : {std::string("cpu"), std::string("reference"), std::string("given rows")}) {
    CAPTURE(name);
    ModelOptions options;
    options.device = {name, 2, {}};
    options.page_tokens = 8, options.chunk_tokens = 4;
    const auto plain = CompiledModel::load(file.open(), graph, options, {});
    const auto source = std::make_shared<Making>(file.open());
    const PlannedBytes planned = CompiledModel::plan_file(source, graph, options, {}, 0);
    const auto made = CompiledModel::load(source, graph, options, {});
    CHECK(made->ledger().used(MemoryUse::weights_private) == planned.loaded.weights.private_);
    CHECK(made->ledger().used(MemoryUse::weights_mapped) == planned.loaded.weights.mapped);
    const uint64_t embedding = file.open()->view("token_embd.weight").bytes;  // which is looked up, and multiplied
    CHECK(planned.loaded.weights.mapped == (name == "reference" ? 2 : 1) * embedding);
    CHECK(logits_of(made) == logits_of(plain));
  }
}

}  // namespace foundry
