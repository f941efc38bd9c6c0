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
  const Admission::Pages pages = model_->pages_for(tokens_.size());
  for (size_t g = 0; g < parent.tables_.size(); ++g)
    tables_.push_back(parent.tables_[g].share(static_cast<uint32_t>(pages[g])));
  encode_globals();
}

void Session::read_saved() {
  if (unread_ == nullptr) return;
  unread_->read(tables_, tokens_.size());
  unread_ = nullptr;
}

void Session::save(const std::string& path) {
  const std::lock_guard lock(mutex_);
  require_open();
  read_saved();
  write_history(path, *model_, tokens_, tables_);
}

std::shared_ptr<Session> Session::fork() {
  const std::lock_guard lock(mutex_);
  require_open();
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

uint32_t Session::position() const {
  const std::lock_guard lock(mutex_);
  return static_cast<uint32_t>(tokens_.size());
}

uint32_t Session::capacity_now() const {
  uint32_t least = model_->arch().max_seq_len;
  for (const PageTable& table : tables_)
    least =
        std::min(least, capacity_tokens(table.size(), table.pool().geometry().page_tokens, model_->arch().max_seq_len));
  return least;
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
  for (const PageTable& table : tables_) bytes += table.size() * table.pool().geometry().page_bytes();
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
    params.pages = reinterpret_cast<uint64_t>(tables_[g].addresses().data());
    params.n_pages = tables_[g].size();
    params.max_seq_len =
        capacity_tokens(tables_[g].size(), tables_[g].pool().geometry().page_tokens, model_->arch().max_seq_len);
  }
  rope_max_seq_len_ = capacity_now();
}

Session::Held Session::held() const { return {tables_.empty() ? 0 : tables_[0].size(), claims_, pages_added_}; }

uint64_t Session::claim_of(size_t group, uint32_t reserved) const {
  const PageTable& table = tables_[group];
  const uint64_t promised = table.pool().geometry().pages_for(reserved), held = table.size();
  const uint32_t tail = first_written(group);
  return promised - std::min(promised, held) + (tail < held && table.shared(tail) ? 1 : 0);
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
  const Admission::Pages pages = model_->pages_for(target);
  bool changes = false;
  for (size_t g = 0; g < tables_.size(); ++g) {
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

uint32_t Session::first_written(size_t group) const {
  return static_cast<uint32_t>(tokens_.size() / tables_[group].pool().geometry().page_tokens);
}

void Session::restore(const Held& before) noexcept {
  model_->admission().settle(claims_, before.claims);
  std::copy(before.claims.begin(), before.claims.end(), claims_.begin());
  for (PageTable& table : tables_) table.truncate(before.pages);
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
  require_open();
  if (n_tokens > tokens_.size())
    throw ValueError("rewind: expected at most the position, " + std::to_string(tokens_.size()) + ", found " +
                     std::to_string(n_tokens));
  tokens_.resize(n_tokens);
  // What is given back stays promised: claimed before it goes, so that nobody else gets it.
  for (size_t g = 0; g < tables_.size(); ++g) {
    const KvGeometry& geometry = tables_[g].pool().geometry();
    const uint64_t promised = geometry.pages_for(reserved_), kept = geometry.pages_for(n_tokens);
    next_claims_[g] = promised - std::min(promised, kept) + 1;
  }
  model_->admission().settle(claims_, next_claims_);
  claims_.swap(next_claims_);
  for (PageTable& table : tables_) table.truncate(static_cast<uint32_t>(table.pool().geometry().pages_for(n_tokens)));
  settle();
  end_generation();
  encode_globals();
}

void Session::close() {
  const std::lock_guard lock(mutex_);
  if (closed_) return;
  require_idle();
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
  o.encoded_max_seq_len = globals_[0].max_seq_len;
  o.encoded_n_pages = globals_[0].n_pages;
  o.encoded_rope_max_seq_len = rope_max_seq_len_;
  o.table_pages = tables_[0].size();
  o.table_addresses = tables_[0].addresses().size();
  for (const auto& pool : model_->pools()) {
    const KvParams params = pool->geometry().params();
    o.encoded_page_tokens = params.page_tokens;
    o.encoded_page_bytes = params.page_bytes;
    for (const uint64_t length : pool->slab_lengths()) o.slab_lengths.push_back(length);
    o.slab_bytes = pool->slab_bytes();
    o.used_pages += pool->used_pages();
  }
  o.ledger_kv_bytes = model_->ledger().used(MemoryUse::kv);
  o.arch_max_seq_len = model_->arch().max_seq_len;
  o.capacity = capacity_now();
  o.position = tokens_.size();
  return o;
}

void Session::bend(const std::string& place, int64_t by) {
  const std::lock_guard lock(mutex_);
  const auto bent = [by](auto& value) { value = static_cast<std::remove_reference_t<decltype(value)>>(value + by); };
  if (place == "encoded.max_seq_len") {
    bent(globals_[0].max_seq_len);
  } else if (place == "encoded.n_pages") {
    bent(globals_[0].n_pages);
  } else if (place == "encoded.rope_max_seq_len") {
    bent(rope_max_seq_len_);
  } else if (place == "table.pages") {
    tables_[0].grow(static_cast<uint32_t>(tables_[0].size() + by));  // a page that nobody told the kernels of
  } else if (place == "ledger.kv_bytes") {
    by > 0 ? model_->ledger_.charge(MemoryUse::kv, static_cast<uint64_t>(by))
           : model_->ledger_.credit(MemoryUse::kv, static_cast<uint64_t>(-by));
  } else {
    throw ValueError("bend: no place \"" + place + "\"");
  }
}

}  // namespace foundry
