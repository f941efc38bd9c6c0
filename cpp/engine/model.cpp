#include "engine/model.h"

#include <algorithm>
#include <span>

#include "base/checked.h"
#include "base/error.h"
#include "base/hash.h"

namespace foundry {
namespace {

constexpr uint64_t kContextShare = 4;                   // of memory beside which not all experts fit, a fourth
constexpr uint32_t kContextTokens = 4096;               // of one session, for which experts leave room anyhow
constexpr uint32_t kMaxSelected = 16;                   // rows of logits made at a time
constexpr uint64_t kLeastStates = 6, kMostStates = 36;  // that a session holds, the most there can be

KvGeometry geometry_of(const LayerGroup& group, const Device& device, const ModelOptions& options,
                       uint32_t step_tokens) {
  if (group.head_dim > device.info().max_head_dim)
    throw ModelFormatError("head_dim: expected at most " + std::to_string(device.info().max_head_dim) + " on device " +
                           device.info().name + ", found " + std::to_string(group.head_dim));
  KvGeometry g;
  g.n_layers = group.n_layers;
  g.n_kv_heads = group.n_kv_heads;
  g.head_dim = group.head_dim;
  g.window = group.window;
  g.step_tokens = group.window == 0 ? 0 : step_tokens;
  g.page_tokens = options.page_tokens;
  g.tile_tokens = std::min(options.page_tokens, device.info().max_tile_tokens);
  g.k_type = options.k_type;
  g.v_type = options.v_type;
  g.check();
  return g;
}

/// Of a session that holds at most `state_cache_bytes` of states: it keeps what is left beside where it is, the next
/// one, and a call's last two.
KvGeometry states_of(const RecurrentGroup& group, const ModelOptions& options) {
  KvGeometry g;
  g.n_layers = group.n_layers;
  g.state_bytes = group.width() * sizeof(float);
  g.page_tokens = options.page_tokens;
  g.tile_tokens = options.page_tokens;
  g.kept_states = static_cast<uint32_t>(
      std::clamp<uint64_t>(options.state_cache_bytes / g.page_bytes(), kLeastStates, kMostStates) - 4);
  g.check();
  return g;
}

/// A GPU with memory of its own has the model there, and the machine's counts for nothing.
uint64_t limit_of(const ModelOptions& options, const Device& device) {
  const uint64_t own = device.info().memory_bytes;
  if (own != 0 && !device.unified())
    return options.memory_limit == 0 ? own : std::min<uint64_t>(options.memory_limit, own);
  if (options.memory_limit != 0) return options.memory_limit;
  uint64_t least = UINT64_MAX;
  for (const uint64_t limit : {options.machine_limit, own})
    if (limit != 0) least = std::min(least, limit);
  return least;
}

Graph verified(const Graph& graph) {
  verify(graph);
  return graph;
}

}  // namespace

CompiledModel::CompiledModel(std::shared_ptr<WeightSource> file, const Graph& graph, const ModelOptions& options)
    : device_(make_device(options.device)),
      graph_(verified(graph)),
      fused_(verified(fuse(graph_, {device_->info().fuses_linears, device_->info().fuses, device_->info().fuses}))),
      ledger_(limit_of(options, *device_)),
      weights_(std::move(file), graph_),
      check_every_step_(options.check_every_step) {
  if (options.chunk_tokens == 0) throw ValueError("chunk_tokens: expected at least 1, found 0");
  const uint32_t rows = std::min(options.chunk_tokens, graph_.arch.max_seq_len);
  std::vector<KvGeometry> geometries;
  std::vector<KvParams> kv;
  for (const LayerGroup& group : graph_.groups) {
    geometries.push_back(geometry_of(group, *device_, options, rows));
    kv.push_back(geometries.back().params());
  }
  if (graph_.recurrent.n_layers != 0) geometries.push_back(states_of(graph_.recurrent, options));
  memory_ = std::make_unique<ContextMemory>(*device_, ledger_, geometries, graph_.arch.max_seq_len, options.slab_pages,
                                            options.prefix_cache_bytes, options.estimated_bytes);
  runner_ = std::make_unique<StepRunner>(*device_, fused_, weights_, std::move(kv), rows, std::min(rows, kMaxSelected));
  keep_experts(options);
  scheduler_ = std::make_unique<Scheduler>(*runner_, forks_);
}

void CompiledModel::keep_experts(const ModelOptions& options) {
  if (device_->info().gpu) return;  // which have each as the file has it
  uint64_t needed = 0;
  if (options.expert_cache_bytes != 0) {
    if (!weights_.keep_experts(*device_, options.expert_cache_bytes, &needed))
      throw ValueError("expert_cache_bytes: expected at least " + std::to_string(needed) +
                       ", an expert of each weight, found " + std::to_string(options.expert_cache_bytes));
    return;
  }
  const PlannedBytes all = plan({0, std::min(graph_.arch.max_seq_len, kContextTokens), 0}, 0);
  if (all.fits) return;
  const uint64_t rest = all.loaded.total() - all.experts, left = all.available - std::min(all.available, rest);
  const uint64_t contexts = std::max(left / kContextShare, all.kv_reserved + all.page_tables);
  weights_.keep_experts(*device_, left - std::min(left, contexts));  // load says where not one fits
}

CompiledModel::~CompiledModel() {
  ledger_.credit(MemoryUse::workspace, runner_->held_bytes());
  ledger_.credit(MemoryUse::sampling, sampling_bytes_);
}

LoadedBytes CompiledModel::loaded_bytes() const {
  return {weights_.plan(*device_), runner_->workspace_bytes(), runner_->draw_room_bytes()};
}

uint64_t CompiledModel::loadable_bytes(const ModelOptions& options) const {
  return ledger_.limit() - std::min(ledger_.limit(), options.estimated_bytes);
}

/// "auto" is the first of its devices that has the model's ops and formats, and memory for it; the last one is not asked.
ModelOptions CompiledModel::on_a_device(const std::shared_ptr<WeightSource>& file, const Graph& graph,
                                        const ModelOptions& options) {
  if (options.device.name != "auto") return options;
  ModelOptions chosen = options;
  const std::vector<std::string> names = auto_devices(options.device);
  for (size_t i = 0; i + 1 < names.size(); ++i) {
    chosen.device.name = names[i];
    try {
      const CompiledModel model(file, graph, chosen);
      if (model.loaded_bytes().total() <= model.loadable_bytes(chosen)) return chosen;
    } catch (const Error&) {}  // a file that no device takes is told by the last one
  }
  chosen.device.name = names.back();
  return chosen;
}

std::shared_ptr<CompiledModel> CompiledModel::load(std::shared_ptr<WeightSource> file, const Graph& graph,
                                                   const ModelOptions& asked, const LoadProgress& progress) {
  const ModelOptions options = on_a_device(file, graph, asked);
  const std::shared_ptr<CompiledModel> model(new CompiledModel(std::move(file), graph, options), [](CompiledModel* m) {
    if (!m->forks_.abandoned()) delete m;  // else its locks may be held by threads that a fork left behind
  });
  const LoadedBytes planned = model->loaded_bytes();
  const uint64_t needed = planned.total();
  const uint64_t limit = model->ledger_.limit(), available = model->loadable_bytes(options);
  if (needed > available)
    throw MemoryLimitError("the model's weights and workspace: needed " + std::to_string(needed) +
                               " bytes, available " + std::to_string(available) + " of the memory limit of " +
                               std::to_string(limit) + " beside " + std::to_string(options.estimated_bytes) +
                               " estimated for tokenizer and Python",
                           needed, available);
  model->weights_.load(*model->device_, model->ledger_, progress);
  model->ledger_.charge(MemoryUse::workspace, planned.workspace);
  try {
    model->runner_->hold_workspace();
  } catch (...) {
    model->ledger_.credit(MemoryUse::workspace, planned.workspace);
    throw;
  }
  model->ledger_.charge(MemoryUse::sampling, planned.sampling);
  model->sampling_bytes_ = planned.sampling;
  model->runner_->make_draw_room();
  return model;
}

PlannedBytes CompiledModel::plan(const Capacity& capacity, uint64_t all_logits_rows) const {
  const ForkGuarded::Inside inside(forks_);
  PlannedBytes p;
  p.loaded = loaded_bytes();
  p.experts = weights_.experts_bytes(*device_);
  p.experts_kept = weights_.experts_kept(), p.experts_count = weights_.experts();
  p.logits = all_logits_rows * graph_.arch.vocab_size * sizeof(float);
  const uint32_t promised = std::max(capacity.initial, capacity.reserved);
  Admission::Pages initial, reserved;
  for (const auto& pool : memory_->pools()) {
    initial.push_back(pool->geometry().pages_ahead(0, capacity.initial));
    reserved.push_back(pool->geometry().most_pages(promised));
  }
  p.page_tables = memory_->table_bytes(promised);
  p.kv_initial = memory_->admission().cost_bytes(initial);
  p.kv_reserved = memory_->admission().cost_bytes(reserved);
  if (memory_->states() != nullptr) {
    Admission::Pages states(reserved.size(), 0);
    states.back() = reserved.back();
    p.states = memory_->admission().cost_bytes(states);
  }
  for (const auto& pool : std::span(memory_->pools()).first(memory_->kv_groups())) {
    p.page_tokens = pool->geometry().page_tokens;
    p.page_bytes += pool->geometry().page_bytes();
    p.slab_bytes += pool->slab_bytes();
  }
  p.limit = ledger_.limit();
  p.available = memory_->admission().available_bytes();
  const uint64_t run = p.kv_reserved + p.page_tables + p.logits;
  p.total = p.loaded.total() + run;
  p.needed = runner_->held_bytes() == 0 ? p.total : run;
  p.fits = p.needed <= p.available;
  return p;
}

PlannedBytes CompiledModel::plan_file(std::shared_ptr<WeightSource> file, const Graph& graph,
                                      const ModelOptions& options, const Capacity& capacity, uint64_t all_logits_rows) {
  const ModelOptions chosen = on_a_device(file, graph, options);
  return CompiledModel(std::move(file), graph, chosen).plan(capacity, all_logits_rows);
}

uint64_t CompiledModel::fingerprint() const {
  std::call_once(graph_hash_once_, [this] { graph_hash_ = graph_.hash(); });
  const uint64_t parts[] = {graph_hash_, weights_.file().fingerprint()};  // asked each time: the file may have changed
  return hash64(std::as_bytes(std::span(parts)));
}

}  // namespace foundry
