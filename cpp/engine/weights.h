// The graph's weights, taken from the file and prepared on the device. A tensor that is both looked up and multiplied (a tied
// embedding) is prepared for each use; the plan counts both.
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "base/ledger.h"
#include "device/device.h"
#include "gguf/gguf.h"
#include "graph/graph.h"

namespace foundry {

using LoadProgress = std::function<void(double fraction)>;

/// What weights will take, by whose memory it is.
struct WeightBytes {
  uint64_t mapped = 0;    // the file's own pages, read in place
  uint64_t private_ = 0;  // re-laid copies
};

class WeightStore {
 public:
  /// Checks every weight of the graph, as its model has it, against the file: ModelFormatError names op, expected and
  /// found shapes. What fusing makes of the graph reads the same weights in the same ways.
  WeightStore(std::shared_ptr<GgufFile> file, const Graph& graph);
  ~WeightStore();
  WeightStore(const WeightStore&) = delete;

  /// Reads no weight.
  WeightBytes plan(const Device& device) const;
  /// Prepares all, which takes what was planned; charges the ledger first. Throws without leaving a charge behind.
  void load(Device& device, MemoryLedger& ledger, const LoadProgress& progress);
  const GgufFile& file() const { return *file_; }
  /// Null for kNone.
  const Weight* get(WeightId id, WeightUse use) const;

 private:
  struct Entry {
    WeightView view;
    WeightUse use;
    std::unique_ptr<Weight> weight;
    std::vector<float> constant = {};  // what the view shows where it is not the file's
    bool of_file() const { return constant.empty(); }
  };
  Entry find(const Op& op, const WeightRef& ref, WeightUse use) const;
  std::shared_ptr<GgufFile> file_;
  std::map<std::pair<WeightId, WeightUse>, Entry> entries_;
  MemoryLedger* ledger_ = nullptr;
  WeightBytes charged_;
};

}  // namespace foundry
