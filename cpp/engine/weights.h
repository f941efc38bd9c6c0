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
#include "files/weight_source.h"
#include "graph/graph.h"

namespace foundry {

using LoadProgress = std::function<void(double fraction)>;

/// What weights will take, by whose memory it is.
struct WeightBytes {
  uint64_t mapped = 0;    // the file's own pages, read in place
  uint64_t private_ = 0;  // re-laid or converted copies, and what the graph says itself
};

class WeightStore {
 public:
  /// Checks every weight of the graph, as its model has it, against the file: ModelFormatError names op, expected and
  /// found shapes. What fusing makes of the graph reads the same weights in the same ways.
  WeightStore(std::shared_ptr<WeightSource> file, const Graph& graph);
  ~WeightStore();
  WeightStore(const WeightStore&) = delete;

  /// Reads no weight.
  WeightBytes plan(const Device& device) const;
  /// Of each weight of experts, as many are kept packed at once as `bytes` allow for all of them together. False where
  /// not one of each does, and then that is what is kept. `needed`: bytes of that.
  bool keep_experts(const Device& device, uint64_t bytes, uint64_t* needed = nullptr);
  /// Bytes for packed experts, in `private_` of the plan; and how many of a weight are kept at once, of how many.
  uint64_t experts_bytes(const Device& device) const;
  uint64_t experts_kept() const { return experts_kept_; }
  uint64_t experts() const { return most_experts_; }

  /// Prepares all, which takes what was planned; charges the ledger first. Throws without leaving a charge behind.
  void load(Device& device, MemoryLedger& ledger, const LoadProgress& progress);
  const WeightSource& file() const { return *file_; }
  /// Null for kNone.
  const Weight* get(WeightId id, WeightUse use) const;

 private:
  struct PagesGo {
    void operator()(std::byte* pages) const;
  };
  struct Entry {
    WeightView view;
    WeightUse use;
    bool routed = false;          // of experts
    std::vector<float> own = {};  // what the view shows where it is not the file's as it lies
    WeightView of_file = {};      // what `own` is made of when it is loaded; no columns: it is the graph's
    // Of rows that are made, where the device reads them in place.
    std::unique_ptr<std::byte, PagesGo> copy = nullptr;
    std::unique_ptr<Weight> weight = nullptr;  // the last one, for it may read the others' bytes as long as it lives
    uint64_t own_bytes() const { return own.size() * sizeof(float); }
    void show_own();
    void read_own();  // from the file
    /// By a device that makes rows itself, or of a copy of all, kept where the device reads it in place.
    std::unique_ptr<Weight> prepared(Device& device);
  };
  Entry find(const Op& op, const WeightRef& ref, WeightUse use) const;
  std::shared_ptr<WeightSource> file_;
  std::map<std::pair<WeightId, WeightUse>, Entry> entries_;
  void set_kept(uint64_t kept);
  uint64_t most_experts_ = 0, experts_kept_ = 0;
  MemoryLedger* ledger_ = nullptr;
  WeightBytes charged_;
};

}  // namespace foundry
