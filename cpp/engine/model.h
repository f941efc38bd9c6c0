// CompiledModel: a graph, as its model has it and fused for its device, prepared weights, the page pools that its
// sessions share, one workspace.
// Thread-safe; steps of its sessions run one after another.
#pragma once
#include <atomic>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "base/forks.h"
#include "engine/scheduler.h"
#include "engine/step.h"
#include "engine/weights.h"
#include "kv/context_memory.h"

namespace foundry {

struct ModelOptions {
  DeviceOptions device;
  uint64_t memory_limit = 0;  // bytes; 0: what machine and device can spare
  DType k_type = DType::f16;
  DType v_type = DType::f16;
  uint32_t page_tokens = 64;
  uint32_t slab_pages = 0;      // 0: as many as fit 8 MiB
  uint32_t chunk_tokens = 512;  // rows of one step: prefill goes in chunks of this
  uint64_t prefix_cache_bytes = 0;
  uint64_t state_cache_bytes = uint64_t{256}
                               << 20;  // of recurrent layers' states that a session holds, at most; six are held anyhow
  /// For experts that are packed at once; 0: for all where a context fits beside them, else what memory has beside the
  /// rest of the model and room for contexts.
  uint64_t expert_cache_bytes = 0;
  uint64_t machine_limit = 0;    // what the machine can spare; 0: not known
  uint64_t estimated_bytes = 0;  // what the caller takes beside the ledger: admission counts it
  bool check_every_step = false;
};

/// Bytes that a model takes once it is loaded, whatever runs then.
struct LoadedBytes {
  WeightBytes weights;
  uint64_t workspace = 0, sampling = 0;
  uint64_t total() const { return weights.mapped + weights.private_ + workspace + sampling; }
};

/// Bytes that a run takes, made before anything of it is allocated.
struct PlannedBytes {
  LoadedBytes loaded;
  uint64_t kv_initial = 0, kv_reserved = 0, page_tables = 0, logits = 0;
  uint64_t experts = 0;                          // of loaded.weights.private_, those for packed experts
  uint64_t experts_kept = 0, experts_count = 0;  // packed at once of a weight, of how many; 0: it has none
  uint64_t states = 0;                           // of kv_reserved, those of recurrent layers
  uint64_t page_tokens = 0, page_bytes = 0, slab_bytes = 0, limit = 0;
  uint64_t total = 0;
  uint64_t needed = 0;     // of it, what is yet to be had: without what a loaded model holds already
  uint64_t available = 0;  // of the limit
  bool fits = false;       // can be promised now
};

/// Tokens, decided by the capacity policy: held from the start, promised, and the least that a growth adds.
struct Capacity {
  uint32_t initial = 0;
  uint32_t reserved = 0;
  uint32_t step = 0;
};

class CompiledModel : public std::enable_shared_from_this<CompiledModel> {  // as the bindings share it
 public:
  /// ModelFormatError, ValueError or MemoryLimitError (before anything is allocated).
  static std::shared_ptr<CompiledModel> load(std::shared_ptr<WeightSource> file, const Graph& graph,
                                             const ModelOptions& options, const LoadProgress& progress);
  ~CompiledModel();

  const Arch& arch() const { return graph_.arch; }
  const Graph& graph() const { return graph_; }
  const DeviceInfo& device_info() const { return device_->info(); }
  const MemoryLedger& ledger() const { return ledger_; }
  ContextMemory& memory() { return *memory_; }
  const ContextMemory& memory() const { return *memory_; }
  Scheduler& scheduler() { return *scheduler_; }
  StepRunner& runner() { return *runner_; }
  /// As a session of `capacity` would take; all_logits_rows rows of logits are returned at once.
  PlannedBytes plan(const Capacity& capacity, uint64_t all_logits_rows) const;
  /// The same before the model is loaded: load() takes exactly that. It allocates nothing of it, reads no weight, and says also what does
  /// not fit. The file may be opened by its header alone.
  static PlannedBytes plan_file(std::shared_ptr<WeightSource> file, const Graph& graph, const ModelOptions& options,
                                const Capacity& capacity, uint64_t all_logits_rows);

  /// Of weights and graph, as the model has it: what a saved history belongs to, however a device fuses. See
  /// WeightSource::fingerprint.
  uint64_t fingerprint() const;

  /// Whoever calls a model or a session is inside.
  ForkGuarded& forks() { return forks_; }
  /// The consistency asserts run before steps that grow a sequence; or before all.
  bool checks_every_step() const { return check_every_step_; }
  void set_check_every_step(bool on) { check_every_step_ = on; }

 private:
  friend struct SequenceTester;
  /// Everything but memory: it can be planned with.
  CompiledModel(std::shared_ptr<WeightSource> file, const Graph& graph, const ModelOptions& options);
  LoadedBytes loaded_bytes() const;
  /// Decides how many experts are packed at once, so that a session has room beside them wherever one of each weight
  /// leaves it. ValueError where it was said, and is not one of each weight.
  void keep_experts(const ModelOptions& options);
  /// Of the limit, beside what is estimated.
  uint64_t loadable_bytes(const ModelOptions& options) const;
  static ModelOptions on_a_device(const std::shared_ptr<WeightSource>& file, const Graph& graph,
                                  const ModelOptions& options);
  std::unique_ptr<Device> device_;
  Graph graph_;  // as the model has it
  Graph fused_;  // what steps run
  MemoryLedger ledger_;
  WeightStore weights_;
  std::unique_ptr<ContextMemory> memory_;
  std::unique_ptr<StepRunner> runner_;
  uint64_t sampling_bytes_ = 0;  // charged
  mutable ForkGuarded forks_;
  std::unique_ptr<Scheduler> scheduler_;
  std::atomic<bool> check_every_step_;
  mutable std::once_flag graph_hash_once_;
  mutable uint64_t graph_hash_ = 0;
};

}  // namespace foundry
