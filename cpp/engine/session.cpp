#include "engine/session.h"

#include <algorithm>
#include <limits>

#include "base/error.h"

namespace foundry {

Session::Session(std::shared_ptr<CompiledModel> model, const Capacity& capacity) : model_(std::move(model)) {
  const uint32_t most = model_->arch().max_seq_len;
  const uint32_t reserved = std::max(capacity.initial, capacity.reserved);
  if (reserved > most)
    throw ContextOverflowError(
        "context: needed " + std::to_string(reserved) + " tokens, available " + std::to_string(most), reserved, most);
  for (const auto& pool : model_->pools()) tables_.emplace_back(*pool);
  globals_.resize(tables_.size());
  claims_.assign(tables_.size(), 0);
  next_claims_ = claims_;
  reserve(reserved);
  try {
    grow_to(capacity.initial);
  } catch (...) {
    close();
    throw;
  }
  pages_added_ = 0;
  step_ = std::max<uint32_t>(capacity.step, 1);  // from here on: the first pages are what was asked for
}

Session::Session(Forked, const Session& parent)
    : model_(parent.model_),
      globals_(parent.globals_.size()),
      claims_(parent.claims_.size(), 0),
      next_claims_(claims_),
      tokens_(parent.tokens_),
      reserved_(parent.reserved_),
      step_(parent.step_),
      pending_(parent.pending_) {
  for (const PageTable& table : parent.tables_)
    tables_.push_back(table.share(static_cast<uint32_t>(table.pool().geometry().pages_for(tokens_.size()))));
  encode_globals();
}

void Session::take_saved(std::shared_ptr<const SavedHistory> saved, uint32_t reserved) {
  for (size_t g = 0; g < tables_.size(); ++g) next_claims_[g] = tables_[g].pool().geometry().most_pages(reserved);
  model_->admission().exchange(claims_, next_claims_);
  claims_.swap(next_claims_);
  std::vector<int32_t> tokens = saved->image.tokens;
  for (size_t g = 0; g < tables_.size(); ++g) {
    tables_[g].drop_before(saved->image.groups[g].first_page);
    tables_[g].grow(static_cast<uint32_t>(tables_[g].pool().geometry().pages_for(tokens.size())));
  }
  tokens_.swap(tokens);
  reserved_ = reserved;
  unread_ = std::move(saved);
  settle();
  encode_globals();
}

void Session::read_saved() {
  if (unread_ == nullptr) return;
  unread_->read(tables_, tokens_.size());
  unread_ = nullptr;
}

void Session::save(const std::string& path) {
  const std::lock_guard lock(mutex_);
  quiesce();
  read_saved();
  write_history(path, *model_, tokens_, tables_);
}

std::shared_ptr<Session> Session::fork() {
  const std::lock_guard lock(mutex_);
  quiesce();
  read_saved();
  std::shared_ptr<Session> child(new Session(Forked{}, *this));
  child->claim(reserved_);
  claim(reserved_);  // the tail is shared now
  return child;
}

Session::~Session() { close(); }

void Session::require_open() const {
  if (closed_) throw ValueError("the session is closed");
  require_idle();
}

void Session::require_idle() const {
  if (stepping_) throw ValueError("called from a progress callback of the session's own step");
}

void Session::stop_steps() {
  require_open();
  drop_ahead();
}

void Session::quiesce() {
  stop_steps();
  let_go();
}

uint32_t Session::position() const {
  const std::lock_guard lock(mutex_);
  return static_cast<uint32_t>(tokens_.size());
}

uint32_t Session::capacity_now() const {
  const uint32_t most = model_->arch().max_seq_len;
  const bool all_windowed =
      std::all_of(tables_.begin(), tables_.end(), [](const PageTable& t) { return t.pool().geometry().window != 0; });
  uint32_t least = most;
  for (const PageTable& table : tables_) {
    const KvGeometry& geometry = table.pool().geometry();
    if (geometry.window == 0 || all_windowed)
      least = std::min(least, capacity_tokens(table.size(), geometry.page_tokens, most));
  }
  return least;
}

uint32_t Session::rewindable_now() const {
  uint64_t least = 0;
  for (const PageTable& table : tables_) least = std::max(least, table.pool().geometry().rewindable_to(table.first()));
  return static_cast<uint32_t>(least);
}

uint32_t Session::rewindable_to() const {
  const std::lock_guard lock(mutex_);
  return rewindable_now();
}

uint32_t Session::capacity() const {
  const std::lock_guard lock(mutex_);
  return capacity_now();
}

uint32_t Session::reserved_tokens() const {
  const std::lock_guard lock(mutex_);
  return reserved_;
}

uint64_t Session::kv_bytes() const {
  const std::lock_guard lock(mutex_);
  uint64_t bytes = 0;
  for (const PageTable& table : tables_) bytes += table.held() * table.pool().geometry().page_bytes();
  return bytes;
}

uint64_t Session::pages_added() const {
  const std::lock_guard lock(mutex_);
  return pages_added_;
}

uint32_t Session::cached_tokens() const {
  const std::lock_guard lock(mutex_);
  return cached_tokens_;
}

bool Session::closed() const {
  const std::lock_guard lock(mutex_);
  return closed_;
}

std::vector<int32_t> Session::tokens() const {
  const std::lock_guard lock(mutex_);
  return tokens_;
}

std::vector<SequenceParams> Session::globals() const {
  const std::lock_guard lock(mutex_);
  return globals_;
}

/// The one place where what kernels see is taken from the page tables.
void Session::encode_globals() {
  for (size_t g = 0; g < tables_.size(); ++g) {
    SequenceParams& params = globals_[g];
    params = {};
    params.pages = tables_[g].addresses_at();
    params.n_pages = tables_[g].size();
    params.first_page = tables_[g].first();
    params.max_seq_len =
        capacity_tokens(tables_[g].size(), tables_[g].pool().geometry().page_tokens, model_->arch().max_seq_len);
  }
  rope_max_seq_len_ = capacity_now();
}

Session::Held Session::held() const {
  Held held{{}, claims_, pages_added_};
  for (const PageTable& table : tables_) held.pages.push_back(table.size());
  return held;
}

uint64_t Session::claim_of(size_t group, uint32_t reserved) const {
  const PageTable& table = tables_[group];
  const KvGeometry& geometry = table.pool().geometry();
  const uint64_t most = geometry.most_pages(reserved), all = geometry.pages_for(reserved);
  const uint32_t tail = first_written(group);
  return std::min(most - std::min<uint64_t>(most, table.held()), all - std::min<uint64_t>(all, table.size())) +
         (tail < table.size() && table.shared(tail) ? 1 : 0);
}

void Session::claim(uint32_t reserved) {
  for (size_t g = 0; g < tables_.size(); ++g) next_claims_[g] = claim_of(g, reserved);
  model_->admission().exchange(claims_, next_claims_);
  claims_.swap(next_claims_);
}

void Session::settle() noexcept {
  for (size_t g = 0; g < tables_.size(); ++g) next_claims_[g] = claim_of(g, reserved_);
  model_->admission().settle(claims_, next_claims_);
  claims_.swap(next_claims_);
}

void Session::grow_to(uint64_t n_tokens) {
  const uint32_t capacity = capacity_now();
  // At least the policy's step, at most what the model can ever use.
  const uint64_t target = n_tokens <= capacity ? capacity
                                               : std::min<uint64_t>(std::max<uint64_t>(n_tokens, capacity + step_),
                                                                    model_->arch().max_seq_len);
  Admission::Pages pages(tables_.size());  // of each table, when all is done but the rolling
  make_room(target, n_tokens);
  bool changes = false;
  for (size_t g = 0; g < tables_.size(); ++g) {
    const KvGeometry& geometry = tables_[g].pool().geometry();
    const uint64_t to = geometry.window == 0 ? target : n_tokens;
    pages[g] = geometry.pages_for(to_keep()) + geometry.pages_ahead(to_keep(), to);
    uint64_t acquired = pages[g] - std::min<uint64_t>(pages[g], tables_[g].size());
    for (uint32_t i = first_written(g); i < tables_[g].size(); ++i) acquired += tables_[g].shared(i) ? 1 : 0;
    changes = changes || acquired != 0;
    next_claims_[g] = std::max(claims_[g], acquired);
  }
  if (!changes) return;
  const Held before = held();
  model_->admission().exchange(claims_, next_claims_);  // what is about to be acquired is claimed first
  claims_.swap(next_claims_);
  try {
    for (size_t g = 0; g < tables_.size(); ++g) {
      for (uint32_t i = first_written(g); i < tables_[g].size(); ++i)
        if (tables_[g].shared(i)) tables_[g].unshare(i);
      pages_added_ += tables_[g].grow(static_cast<uint32_t>(std::max<uint64_t>(pages[g], tables_[g].size())));
    }
    settle();
  } catch (...) {
    restore(before);
    throw;
  }
  encode_globals();
}

void Session::make_room(uint64_t target, uint64_t n_tokens) {
  try {
    for (PageTable& table : tables_) {
      const KvGeometry& geometry = table.pool().geometry();
      table.make_room(static_cast<uint32_t>(geometry.pages_for(geometry.window == 0 ? target : n_tokens)));
    }
  } catch (...) {
    encode_globals();
    throw;
  }
  encode_globals();
}

void Session::roll_to(uint64_t first, uint64_t end) {
  bool rolls = false;
  for (PageTable& table : tables_) {
    const KvGeometry& geometry = table.pool().geometry();
    const auto pages = static_cast<uint32_t>(geometry.pages_for(end));
    if (pages <= table.size()) continue;
    const uint64_t seen = first - std::min<uint64_t>(first, geometry.window - 1);
    table.roll(static_cast<uint32_t>(geometry.pages_for(to_keep())), static_cast<uint32_t>(seen / geometry.page_tokens),
               pages);
    rolls = true;
  }
  if (rolls) encode_globals();
}

void Session::commit(std::span<const int32_t> tokens) {
  tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
  bool drops = false;
  for (size_t g = 0; g < tables_.size(); ++g) {
    const KvGeometry& geometry = tables_[g].pool().geometry();
    const uint64_t kept = first_kept(geometry), passed = kept - std::min<uint64_t>(kept, tables_[g].first());
    drops = drops || passed != 0;
    next_claims_[g] = claims_[g] + passed;  // what goes may be promised: claimed before anybody else gets it
  }
  if (!drops) return;
  model_->admission().settle(claims_, next_claims_);
  claims_.swap(next_claims_);
  for (PageTable& table : tables_) table.drop_before(static_cast<uint32_t>(first_kept(table.pool().geometry())));
  settle();
  encode_globals();
}

uint64_t Session::first_kept(const KvGeometry& geometry) const {
  const uint64_t kept = geometry.first_kept(tokens_.size());
  if (geometry.window == 0 || held_from_ >= tokens_.size()) return kept;
  const uint64_t spare = geometry.step_pages() - 2;  // promised for long steps; a step of a generation is one token
  return std::max(geometry.first_kept(held_from_), kept - std::min(kept, spare));
}

void Session::hold(uint32_t position) {
  const std::lock_guard lock(mutex_);
  require_open();
  held_from_ = position;
}

void Session::let_go() {
  if (held_from_ == kHoldsNothing) return;
  held_from_ = kHoldsNothing;
  commit({});
}

uint32_t Session::first_written(size_t group) const {
  return static_cast<uint32_t>(tokens_.size() / tables_[group].pool().geometry().page_tokens);
}

void Session::restore(const Held& before) noexcept {
  model_->admission().settle(claims_, before.claims);
  std::copy(before.claims.begin(), before.claims.end(), claims_.begin());
  for (size_t g = 0; g < tables_.size(); ++g)
    tables_[g].unroll(static_cast<uint32_t>(tables_[g].pool().geometry().pages_for(to_keep())), before.pages[g]);
  pages_added_ = before.pages_added;
  encode_globals();
}

void Session::reserve(uint32_t n_tokens) {
  const std::lock_guard lock(mutex_);
  require_open();
  const uint32_t most = model_->arch().max_seq_len;
  if (n_tokens > most)
    throw ContextOverflowError(
        "context: needed " + std::to_string(n_tokens) + " tokens, available " + std::to_string(most), n_tokens, most);
  claim(n_tokens);
  reserved_ = n_tokens;
  encode_globals();
}

void Session::rewind(uint32_t n_tokens) {
  const std::lock_guard lock(mutex_);
  stop_steps();
  if (n_tokens > tokens_.size())
    throw ValueError("rewind: expected at most the position, " + std::to_string(tokens_.size()) + ", found " +
                     std::to_string(n_tokens));
  if (n_tokens != 0 && n_tokens < rewindable_now())
    throw ValueError("rewind: expected 0 or at least " + std::to_string(rewindable_now()) +
                     ", for windows have passed what was before, found " + std::to_string(n_tokens));
  tokens_.resize(n_tokens);
  // What is given back stays promised: claimed before it goes, so that nobody else gets it.
  for (size_t g = 0; g < tables_.size(); ++g) {
    const KvGeometry& geometry = tables_[g].pool().geometry();
    next_claims_[g] = geometry.most_pages(reserved_) + 1;
    if (geometry.window == 0) next_claims_[g] -= std::min(next_claims_[g] - 1, geometry.pages_for(n_tokens));
  }
  model_->admission().settle(claims_, next_claims_);
  claims_.swap(next_claims_);
  for (PageTable& table : tables_) table.truncate(static_cast<uint32_t>(table.pool().geometry().pages_for(n_tokens)));
  settle();
  let_go();
  end_generation();
  encode_globals();
}

void Session::close() {
  const std::lock_guard lock(mutex_);
  if (closed_) return;
  require_idle();
  drop_ahead();
  closed_ = true;
  try {
    if (unread_ == nullptr) model_->prefix_cache().insert(tokens_, tables_);
  } catch (const std::bad_alloc&) {  // then it is not kept
  }
  for (PageTable& table : tables_) table.truncate(0);
  model_->admission().drop(claims_);
  unread_ = nullptr;
  tokens_.clear();
  tokens_.shrink_to_fit();
  reserved_ = 0;
  logits_ = {};
  end_generation();
  encode_globals();
}

Observed Session::observe() const {
  const std::lock_guard lock(mutex_);
  Observed o{};
  for (size_t g = 0; g < tables_.size(); ++g) {
    const PageTable& table = tables_[g];
    const PagePool& pool = table.pool();
    const KvParams params = pool.geometry().params();
    Observed::Group& group = o.groups.emplace_back();
    group.window = pool.geometry().window;
    group.encoded_pages = globals_[g].pages;
    group.table_pages_at = table.addresses_at();
    group.encoded_max_seq_len = globals_[g].max_seq_len;
    group.encoded_n_pages = globals_[g].n_pages;
    group.encoded_first_page = globals_[g].first_page;
    group.encoded_page_tokens = params.page_tokens;
    group.encoded_page_bytes = params.page_bytes;
    group.table_pages = table.size();
    group.table_first = table.first();
    group.table_held = table.held();
    group.table_addresses = table.addresses().size();
    group.table_nulls =
        static_cast<uint64_t>(std::count(table.addresses().begin(), table.addresses().end(), uint64_t{0}));
    group.slab_lengths = pool.slab_lengths();
    group.slab_bytes = pool.slab_bytes();
    group.used_pages = pool.used_pages();
  }
  o.encoded_rope_max_seq_len = rope_max_seq_len_;
  o.ledger_kv_bytes = model_->ledger().used(MemoryUse::kv);
  o.arch_max_seq_len = model_->arch().max_seq_len;
  o.capacity = capacity_now();
  o.position = tokens_.size();
  return o;
}

void Session::bend(const std::string& place, size_t group, int64_t by) {
  const std::lock_guard lock(mutex_);
  const auto bent = [by](auto& value) { value = static_cast<std::remove_reference_t<decltype(value)>>(value + by); };
  if (place == "encoded.max_seq_len") {
    bent(globals_.at(group).max_seq_len);
  } else if (place == "encoded.pages") {
    bent(globals_.at(group).pages);
  } else if (place == "encoded.n_pages") {
    bent(globals_.at(group).n_pages);
  } else if (place == "encoded.first_page") {
    bent(globals_.at(group).first_page);
  } else if (place == "encoded.rope_max_seq_len") {
    bent(rope_max_seq_len_);
  } else if (place == "table.pages") {  // a page that nobody told the kernels of
    tables_.at(group).grow(static_cast<uint32_t>(tables_[group].size() + by));
    globals_.at(group).pages = tables_[group].addresses_at();
  } else if (place == "table.first") {  // one that they think is there
    tables_.at(group).drop_before(static_cast<uint32_t>(tables_[group].first() + by));
  } else if (place == "ledger.kv_bytes") {
    by > 0 ? model_->ledger_.charge(MemoryUse::kv, static_cast<uint64_t>(by))
           : model_->ledger_.credit(MemoryUse::kv, static_cast<uint64_t>(-by));
  } else {
    throw ValueError("bend: no place \"" + place + "\"");
  }
}

}  // namespace foundry
