// CompiledModel: a graph fused for its device, prepared weights, the page pools that its sessions share, one workspace.
// Thread-safe; steps of its sessions run one after another.
#pragma once
#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "engine/admission.h"
#include "engine/prefix_cache.h"
#include "engine/step.h"
#include "engine/weights.h"

namespace foundry {

class Session;

struct ModelOptions {
  DeviceOptions device;
  uint64_t memory_limit = 0;  // bytes; 0: what machine and device can spare
  DType k_type = DType::f16;
  DType v_type = DType::f16;
  uint32_t page_tokens = 64;
  uint32_t slab_pages = 0;      // 0: as many as fit 8 MiB
  uint32_t chunk_tokens = 512;  // rows of one step: prefill goes in chunks of this
  uint64_t prefix_cache_bytes = 0;
  uint64_t machine_limit = 0;    // what the machine can spare; 0: not known
  uint64_t estimated_bytes = 0;  // what the caller takes beside the ledger: admission counts it
};

/// Bytes that a run takes, made before anything of it is allocated.
struct PlannedBytes {
  uint64_t weights_mapped = 0, weights_private = 0, kv_initial = 0, kv_reserved = 0, workspace = 0, logits = 0;
  uint64_t page_tokens = 0, page_bytes = 0, slab_bytes = 0, limit = 0, available = 0;
  bool fits = false;  // can be promised now
};

/// Tokens, decided by the capacity policy: held from the start, promised, and the least that a growth adds.
struct Capacity {
  uint32_t initial = 0;
  uint32_t reserved = 0;
  uint32_t step = 0;
};

/// Called as prefill goes on: rows done, rows in all. May throw: the step is abandoned, positions stay.
using Progress = std::function<void(uint64_t done, uint64_t total)>;

/// What a step is asked for: these tokens behind the session's position.
struct BatchItem {
  Session* session = nullptr;
  std::span<const int32_t> tokens;
  uint64_t cancels = 0;  // of the session when the call was made, which may be long before its turn; forward() sets it
};

/// Receives logits [vocab] of one row of one item, in ascending order.
using LogitsSink = std::function<void(size_t item, size_t row, std::span<const float> logits)>;
enum class LogitsOf : uint32_t { last, all };

class CompiledModel : public std::enable_shared_from_this<CompiledModel> {
 public:
  /// ModelFormatError, ValueError or MemoryLimitError (before anything is allocated).
  static std::shared_ptr<CompiledModel> load(std::shared_ptr<GgufFile> file, const Graph& graph,
                                             const ModelOptions& options, const LoadProgress& progress);
  ~CompiledModel();

  const Arch& arch() const { return graph_.arch; }
  const Graph& graph() const { return graph_; }
  const DeviceInfo& device_info() const { return device_->info(); }
  const MemoryLedger& ledger() const { return ledger_; }
  const std::vector<std::unique_ptr<PagePool>>& pools() const { return pools_; }
  Admission& admission() { return *admission_; }
  PrefixCache& prefix_cache() { return *prefix_cache_; }
  /// As a session of `capacity` would take; all_logits_rows rows of logits are returned at once.
  PlannedBytes plan(const Capacity& capacity, uint64_t all_logits_rows) const;

  std::shared_ptr<Session> open_session(const Capacity& capacity);
  /// The session of a saved file, promised its tokens and `more`. It maps the file; the step that first needs pages reads them.
  /// ModelFormatError: another model, device or layout, a damaged file.
  std::shared_ptr<Session> restore(const std::string& path, uint32_t more, uint32_t step);
  /// Of weights and graph: what a saved history belongs to.
  uint64_t fingerprint() const;

  /// One ragged step. All items or none: pages are found for all before a kernel runs, positions commit together at the
  /// end. Generations under way in these sessions end.
  void forward(std::span<const BatchItem> items, LogitsOf which, const LogitsSink& sink, const Progress& progress);

 private:
  friend class Session;
  /// Steps, one at a time: taken before any session's lock, so that whoever waits for its turn holds up nobody else. ValueError
  /// on the thread that runs a step: a progress callback can't step.
  class Turn {
   public:
    explicit Turn(CompiledModel& model);
    ~Turn() { model_.stepping_ = std::thread::id(); }
    Turn(const Turn&) = delete;

   private:
    CompiledModel& model_;
    std::unique_lock<std::mutex> lock_;
  };
  struct Stepping;
  CompiledModel(std::shared_ptr<GgufFile> file, const Graph& graph, const ModelOptions& options);
  /// The step itself; the caller has the turn and the sessions' locks.
  void run(std::span<const BatchItem> items, LogitsOf which, const LogitsSink& sink, const Progress& progress);

  std::unique_ptr<Device> device_;
  Graph graph_;
  MemoryLedger ledger_;
  WeightStore weights_;
  std::vector<std::unique_ptr<PagePool>> pools_;
  std::unique_ptr<PrefixCache> prefix_cache_;  // gives its pages back before the pools go
  std::unique_ptr<Admission> admission_;
  std::unique_ptr<StepRunner> runner_;
  std::unique_ptr<Buffer> workspace_;
  std::mutex step_mutex_;
  std::atomic<std::thread::id> stepping_;  // who has the turn
  mutable std::once_flag fingerprint_once_;
  mutable uint64_t fingerprint_ = 0;
};

}  // namespace foundry
