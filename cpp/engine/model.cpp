#include "engine/model.h"

#include <algorithm>

#include "base/checked.h"
#include "base/error.h"
#include "base/hash.h"
#include "engine/session.h"

namespace foundry {
namespace {

constexpr uint32_t kMaxSelected = 16;               // rows of logits made at a time
constexpr uint64_t kSlabBytes = uint64_t{8} << 20;  // a slab's size where the pages are smaller

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

uint32_t slab_pages(const KvGeometry& geometry, uint32_t wanted) {
  if (wanted != 0) return wanted;
  return static_cast<uint32_t>(std::clamp<uint64_t>(kSlabBytes / geometry.page_bytes(), 1, 64));
}

uint64_t limit_of(const ModelOptions& options, const DeviceInfo& device) {
  if (options.memory_limit != 0) return options.memory_limit;
  uint64_t least = UINT64_MAX;
  for (const uint64_t limit : {options.machine_limit, device.memory_bytes})
    if (limit != 0) least = std::min(least, limit);
  return least;
}

Graph verified_and_fused(const Graph& graph, const DeviceInfo& device) {
  verify(graph);
  Graph fused = fuse(graph);
  if (device.fuses) chain(fused);
  return fused;
}

}  // namespace

CompiledModel::CompiledModel(std::shared_ptr<GgufFile> file, const Graph& graph, const ModelOptions& options)
    : device_(make_device(options.device)),
      graph_(verified_and_fused(graph, device_->info())),
      ledger_(limit_of(options, device_->info())),
      weights_(std::move(file), graph_) {
  if (options.chunk_tokens == 0) throw ValueError("chunk_tokens: expected at least 1, found 0");
  const uint32_t rows = std::min(options.chunk_tokens, graph_.arch.max_seq_len);
  std::vector<KvParams> kv;
  for (const LayerGroup& group : graph_.groups) {
    const KvGeometry geometry = geometry_of(group, *device_, options, rows);
    kv.push_back(geometry.params());
    pools_.push_back(std::make_unique<PagePool>(*device_, ledger_, geometry, slab_pages(geometry, options.slab_pages)));
  }
  prefix_cache_ = std::make_unique<PrefixCache>(pools_, options.prefix_cache_bytes);
  admission_ = std::make_unique<Admission>(
      ledger_, pools_, [this] { return prefix_cache_->evict_one(); }, options.estimated_bytes);
  runner_ = std::make_unique<StepRunner>(*device_, graph_, weights_, std::move(kv), rows, std::min(rows, kMaxSelected));
}

CompiledModel::~CompiledModel() {
  if (workspace_ != nullptr) ledger_.credit(MemoryUse::workspace, workspace_->bytes());
}

std::shared_ptr<CompiledModel> CompiledModel::load(std::shared_ptr<GgufFile> file, const Graph& graph,
                                                   const ModelOptions& options, const LoadProgress& progress) {
  std::shared_ptr<CompiledModel> model(new CompiledModel(std::move(file), graph, options));
  const WeightBytes weights = model->weights_.plan(*model->device_);
  const uint64_t workspace = model->runner_->workspace_bytes();
  const uint64_t needed = weights.mapped + weights.private_ + workspace;
  const uint64_t limit = model->ledger_.limit(), available = limit - std::min(limit, options.estimated_bytes);
  if (needed > available)
    throw MemoryLimitError("the model's weights and workspace: needed " + std::to_string(needed) +
                               " bytes, available " + std::to_string(available) + " of the memory limit of " +
                               std::to_string(limit) + " beside " + std::to_string(options.estimated_bytes) +
                               " estimated for tokenizer and Python",
                           needed, available);
  model->weights_.load(*model->device_, model->ledger_, progress);
  model->ledger_.charge(MemoryUse::workspace, workspace);
  try {
    model->workspace_ = model->device_->allocate(workspace);
  } catch (...) {
    model->ledger_.credit(MemoryUse::workspace, workspace);
    throw;
  }
  model->runner_->attach(*model->workspace_);
  return model;
}

PlannedBytes CompiledModel::plan(const Capacity& capacity, uint64_t all_logits_rows) const {
  const WeightBytes weights = weights_.plan(*device_);
  PlannedBytes p;
  p.weights_mapped = weights.mapped;
  p.weights_private = weights.private_;
  p.workspace = runner_->workspace_bytes();
  p.logits = all_logits_rows * graph_.arch.vocab_size * sizeof(float);
  Admission::Pages initial, reserved;
  for (const auto& pool : pools_) {
    initial.push_back(pool->geometry().pages_ahead(0, capacity.initial));
    reserved.push_back(pool->geometry().most_pages(std::max(capacity.initial, capacity.reserved)));
  }
  p.kv_initial = admission_->cost_bytes(initial);
  p.kv_reserved = admission_->cost_bytes(reserved);
  for (const auto& pool : pools_) {
    p.page_tokens = pool->geometry().page_tokens;
    p.page_bytes += pool->geometry().page_bytes();
    p.slab_bytes += pool->slab_bytes();
  }
  p.limit = ledger_.limit();
  p.available = admission_->available_bytes();
  p.fits = p.kv_reserved + p.logits <= p.available;
  return p;
}

std::shared_ptr<Session> CompiledModel::open_session(const Capacity& capacity) {
  return std::make_shared<Session>(shared_from_this(), capacity);
}

std::shared_ptr<Session> CompiledModel::restore(const std::string& path, uint32_t more, uint32_t step) {
  auto saved = std::make_shared<const SavedHistory>(path, *this);
  const auto n = static_cast<uint32_t>(saved->image.tokens.size());
  auto session = open_session({0, 0, step});
  session->take_saved(std::move(saved),
                      static_cast<uint32_t>(std::min<uint64_t>(uint64_t{n} + more, arch().max_seq_len)));
  return session;
}

uint64_t CompiledModel::fingerprint() const {
  std::call_once(fingerprint_once_, [this] {
    const std::string graph = graph_.serialize();
    fingerprint_ = hash64(std::as_bytes(std::span(graph)), weights_.file().fingerprint());
  });
  return fingerprint_;
}

CompiledModel::Turn::Turn(CompiledModel& model) : model_(model) {
  if (model.stepping_ == std::this_thread::get_id())
    throw ValueError("called from a progress callback of this model, while its step runs");
  lock_ = std::unique_lock(model.step_mutex_);
  model.stepping_ = std::this_thread::get_id();
}

void CompiledModel::forward(std::span<const BatchItem> items, LogitsOf which, const LogitsSink& sink,
                            const Progress& progress) {
  std::vector<BatchItem> made(items.begin(), items.end());
  for (BatchItem& item : made) item.cancels = item.session->cancels_;
  const Turn turn(*this);
  std::vector<Session*> sessions;
  for (const BatchItem& item : items) sessions.push_back(item.session);
  std::sort(sessions.begin(), sessions.end());  // one order of locking for every thread
  if (std::adjacent_find(sessions.begin(), sessions.end()) != sessions.end())
    throw ValueError("a batch holds a session twice; expected each once");
  std::vector<std::unique_lock<std::recursive_mutex>> locks;
  for (Session* session : sessions) {
    if (session->model_.get() != this) throw ValueError("a batch holds a session of another model");
    locks.emplace_back(session->mutex_);
    session->quiesce();
  }
  run(made, which, sink, progress);
  for (const BatchItem& item : items) item.session->end_generation();
}

/// While it lives, these sessions refuse to be changed.
struct CompiledModel::Stepping {
  explicit Stepping(std::span<const BatchItem> of) : items(of) {
    for (const BatchItem& item : items) item.session->stepping_ = true;
  }
  ~Stepping() {
    for (const BatchItem& item : items) item.session->stepping_ = false;
  }
  Stepping(const Stepping&) = delete;
  std::span<const BatchItem> items;
};

void CompiledModel::run(std::span<const BatchItem> items, LogitsOf which, const LogitsSink& sink,
                        const Progress& progress) {
  // Plan: everything that can fail for want of tokens or memory.
  uint64_t total = 0;
  for (const BatchItem& item : items) {
    if (item.tokens.empty()) throw ValueError("expected at least one token, found none");
    for (size_t i = 0; i < item.tokens.size(); ++i)
      if (item.tokens[i] < 0 || static_cast<uint32_t>(item.tokens[i]) >= arch().vocab_size)
        throw ValueError("token " + std::to_string(i) + ": expected an id from 0 to " +
                         std::to_string(arch().vocab_size - 1) + ", found " + std::to_string(item.tokens[i]));
    const uint64_t end = item.session->tokens_.size() + item.tokens.size();
    if (end > arch().max_seq_len)
      throw ContextOverflowError("context: needed " + std::to_string(end) + " tokens, available " +
                                     std::to_string(arch().max_seq_len) + " (the model's max_seq_len)",
                                 static_cast<int64_t>(end), arch().max_seq_len);
    total += item.tokens.size();
  }
  std::vector<Session::Held> before;
  for (const BatchItem& item : items) before.push_back(item.session->held());
  const Stepping stepping(items);
  try {
    for (const BatchItem& item : items) {
      item.session->read_saved();
      std::vector<int32_t>& tokens = item.session->tokens_;
      if (const size_t end = tokens.size() + item.tokens.size(); end > tokens.capacity())
        tokens.reserve(std::max(end, 2 * tokens.capacity()));
      item.session->grow_to(item.session->tokens_.size() + item.tokens.size());
    }

    // Apply: chunks of the rows of all items, laid end to end.
    uint64_t done = 0;
    const Poll poll = [&] {
      for (const BatchItem& item : items)
        if (item.session->cancels_ != item.cancels)
          throw CancelledError("cancelled; the session is where it was before this call");
      if (progress) progress(done, total);
    };
    size_t item = 0, offset = 0;
    std::vector<RowRun> runs;
    std::vector<std::pair<size_t, size_t>> origin;  // of each row of the chunk: item, row
    std::vector<int32_t> selected;
    while (item < items.size()) {
      runs.clear(), origin.clear(), selected.clear();
      runner_->finish();  // windows take pages again that the chunk before reads
      while (item < items.size() && origin.size() < runner_->max_rows()) {
        Session& session = *items[item].session;
        const size_t n = std::min<size_t>(items[item].tokens.size() - offset, runner_->max_rows() - origin.size());
        const size_t start = session.tokens_.size() + offset;
        session.roll_to(start, start + n);
        runs.push_back({session.globals_, items[item].tokens.subspan(offset, n), static_cast<uint32_t>(start),
                        session.rope_max_seq_len_});
        for (size_t i = 0; i < n; ++i) {
          const bool last = offset + i + 1 == items[item].tokens.size();
          if (which == LogitsOf::all || last) selected.push_back(static_cast<int32_t>(origin.size()));
          origin.emplace_back(item, offset + i);
        }
        offset += n;
        if (offset == items[item].tokens.size()) ++item, offset = 0;
      }
      runner_->run_body(runs, poll);
      for (size_t at = 0; at < selected.size(); at += runner_->max_selected()) {
        const size_t n = std::min<size_t>(runner_->max_selected(), selected.size() - at);
        if (at != 0) poll();
        const float* logits = runner_->run_head(std::span(selected).subspan(at, n));
        for (size_t i = 0; i < n; ++i) {
          const auto [of, row] = origin[static_cast<size_t>(selected[at + i])];
          sink(of, row, {logits + i * arch().vocab_size, arch().vocab_size});
        }
      }
      done += origin.size();
      poll();
    }
    runner_->finish();
  } catch (...) {
    runner_->abandon();
    for (size_t i = 0; i < items.size(); ++i) items[i].session->restore(before[i]);
    throw;
  }
  for (const BatchItem& item : items) item.session->commit(item.tokens);
}

}  // namespace foundry
