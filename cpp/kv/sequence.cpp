#include "kv/sequence.h"

#include <algorithm>
#include <string>
#include <utility>

#include "base/error.h"

namespace foundry {
/// ContextOverflowError past the model's last position.
void Sequence::within_context(uint64_t n_tokens) const {
  const uint32_t most = memory_.max_seq_len();
  if (n_tokens > most)
    throw ContextOverflowError("context: needed " + std::to_string(n_tokens) + " tokens, available " +
                                   std::to_string(most) + " (the model's max_seq_len)",
                               static_cast<int64_t>(n_tokens), most);
}

Sequence::Sequence(ContextMemory& memory) : memory_(memory), states_(memory.states()) {
  for (size_t g = 0; g < memory.kv_groups(); ++g) tables_.emplace_back(*memory.pools()[g]);
  globals_.resize(tables_.size());
  claims_.assign(memory.pools().size(), 0);
  next_claims_ = claims_;
  encode();
}

Sequence::~Sequence() { clear(); }

void Sequence::inherit(const Sequence& parent) {
  promised_ = parent.promised_, step_ = parent.step_;
  const uint64_t n = std::max<uint64_t>(promised_, parent.tokens_.size());
  make_room(n, n);
  tokens_.assign(parent.tokens_.begin(), parent.tokens_.end());
  for (size_t g = 0; g < tables_.size(); ++g) {
    const PageTable& table = parent.tables_[g];
    const uint64_t n_pages = table.pool().geometry().pages_for(tokens_.size());
    tables_[g].take(std::span(table.pages()).first(n_pages), table.first());
  }
  states_.share(parent.states_);
  encode();
}

std::unique_ptr<Sequence> Sequence::fork() {
  const std::lock_guard lock(mutex_);
  auto child = std::make_unique<Sequence>(memory_);
  child->inherit(*this);
  child->claim(promised_);
  claim(promised_);  // the tail is shared now
  return child;
}

Sequence::Snapshot Sequence::snapshot() const {
  const std::lock_guard lock(mutex_);
  Snapshot snapshot(states_);
  snapshot.tokens_ = tokens_;
  snapshot.groups_.reserve(tables_.size());
  for (const PageTable& table : tables_) {
    const uint64_t n_pages = table.pool().geometry().pages_for(tokens_.size());
    const auto pages = std::span(table.pages()).first(n_pages);
    Snapshot::Group group{&table.pool(), {pages.begin(), pages.end()}, table.first()};
    for (const PageId page : group.pages)
      if (page != kNoPage) group.pool->retain(page);
    snapshot.groups_.push_back(std::move(group));
  }
  return snapshot;
}

Sequence::Snapshot::Snapshot(const States& states) : states_(states.any() ? &states.pool() : nullptr) {
  states_.share(states);
}

Sequence::Snapshot::~Snapshot() {
  for (const Group& group : groups_)
    for (const PageId page : group.pages)
      if (page != kNoPage) group.pool->release(page);
}

void Sequence::go_back(const Snapshot& snapshot) noexcept {
  const std::lock_guard lock(mutex_);
  claim_most(0);  // what is given back stays promised
  tokens_.assign(snapshot.tokens_.begin(), snapshot.tokens_.end());
  for (size_t g = 0; g < tables_.size(); ++g) tables_[g].take(snapshot.groups_[g].pages, snapshot.groups_[g].first);
  states_.share(snapshot.states_);
  settle();
  encode();
}

Sequence::Figures Sequence::figures() const {
  const std::lock_guard lock(mutex_);
  Figures figures{static_cast<uint32_t>(tokens_.size()), capacity(), rewindable_to(), promised_, 0, 0, pages_added_};
  if (states_.any()) figures.state_bytes = states_.held() * states_.pool().geometry().page_bytes();
  figures.kv_bytes = figures.state_bytes;
  for (const PageTable& table : tables_) figures.kv_bytes += table.held() * table.pool().geometry().page_bytes();
  return figures;
}

uint64_t Sequence::shared_bytes() const {
  const std::lock_guard lock(mutex_);
  uint64_t bytes = 0;
  for (const PageTable& table : tables_)
    for (uint32_t i = 0; i < table.pages().size(); ++i)
      if (table.shared(i)) bytes += table.pool().geometry().page_bytes();
  if (states_.any()) bytes += (states_.held() - states_.own()) * states_.pool().geometry().page_bytes();
  return bytes;
}

std::vector<int32_t> Sequence::tokens() const {
  const std::lock_guard lock(mutex_);
  return tokens_;
}

std::vector<SequenceParams> Sequence::globals() const {
  const std::lock_guard lock(mutex_);
  return globals_;
}

uint32_t Sequence::capacity() const {
  const uint32_t most = memory_.max_seq_len();
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

uint32_t Sequence::rewindable_to() const {
  uint64_t least = 0;
  for (const PageTable& table : tables_) least = std::max(least, table.pool().geometry().rewindable_to(table.first()));
  return static_cast<uint32_t>(least);
}

/// The one place where what kernels see is taken from the page tables.
void Sequence::encode() {
  for (size_t g = 0; g < tables_.size(); ++g) {
    SequenceParams& params = globals_[g];
    params = {};
    params.pages = tables_[g].addresses_at();
    params.n_pages = tables_[g].size();
    params.first_page = tables_[g].first();
    params.max_seq_len =
        capacity_tokens(tables_[g].size(), tables_[g].pool().geometry().page_tokens, memory_.max_seq_len());
  }
}

uint32_t Sequence::first_written(size_t group, uint64_t at) const {
  return static_cast<uint32_t>(at / tables_[group].pool().geometry().page_tokens);
}

/// Pages that a promise may still take: those not held, and copies of those written next where they are shared. Of
/// states all but those that nobody else holds, for what others hold stays used when this one lets it go.
uint64_t Sequence::claim_of(size_t group, uint32_t promised) const {
  if (group == tables_.size()) {
    const uint64_t most = states_.pool().geometry().most_pages(promised);
    return most - std::min(most, states_.own());
  }
  const PageTable& table = tables_[group];
  const KvGeometry& geometry = table.pool().geometry();
  const auto length = static_cast<uint32_t>(tokens_.size());
  const uint64_t most = geometry.most_pages(promised), all = geometry.pages_for(promised);
  uint64_t copies = 0;
  for (uint32_t i = first_written(group, states_.any() ? states_.nearest(length) : length); i < table.size(); ++i)
    copies += i <= first_written(group, length) && table.shared(i) ? 1 : 0;
  return std::min(most - std::min<uint64_t>(most, table.held()), all - std::min<uint64_t>(all, table.size())) + copies;
}

void Sequence::claim(uint32_t promised) {
  for (size_t g = 0; g < claims_.size(); ++g) next_claims_[g] = claim_of(g, promised);
  memory_.admission().exchange(claims_, next_claims_);
  claims_.swap(next_claims_);
}

void Sequence::settle() noexcept {
  for (size_t g = 0; g < claims_.size(); ++g) next_claims_[g] = claim_of(g, promised_);
  memory_.admission().settle(claims_, next_claims_);
  claims_.swap(next_claims_);
}

void Sequence::claim_most(uint64_t least) noexcept {
  for (size_t g = 0; g < tables_.size(); ++g) {
    const KvGeometry& geometry = tables_[g].pool().geometry();
    next_claims_[g] = geometry.most_pages(promised_) + 1;
    if (geometry.window == 0) next_claims_[g] -= std::min(next_claims_[g] - 1, geometry.pages_for(least));
  }
  if (states_.any()) next_claims_.back() = states_.pool().geometry().most_pages(promised_) + 1;
  memory_.admission().settle(claims_, next_claims_);
  claims_.swap(next_claims_);
}

void Sequence::set_step(uint32_t n_tokens) {
  const std::lock_guard lock(mutex_);
  step_ = std::max<uint32_t>(n_tokens, 1);
  pages_added_ = 0;
}

void Sequence::promise(uint32_t n_tokens) {
  const std::lock_guard lock(mutex_);
  within_context(n_tokens);
  for (size_t g = 0; g < claims_.size(); ++g) next_claims_[g] = claim_of(g, n_tokens);
  const uint64_t more = room_bytes_with(n_tokens, n_tokens) - charged_bytes_;
  memory_.admission().exchange(claims_, next_claims_, more);
  claims_.swap(next_claims_);
  charged_bytes_ += more;
  try {
    make_charged_room(n_tokens, n_tokens);
  } catch (...) {
    settle();  // at what was promised before
    throw;
  }
  promised_ = n_tokens;
}

void Sequence::hold(uint32_t n_tokens) {
  const std::lock_guard lock(mutex_);
  grow_to(n_tokens, tokens_.size(), false);
}

void Sequence::require_room(uint64_t n_rows) const {
  const std::lock_guard lock(mutex_);
  within_context(tokens_.size() + n_rows);
}

void Sequence::hold_from(uint32_t position) {
  const std::lock_guard lock(mutex_);
  held_from_ = position;
}

void Sequence::let_go() {
  const std::lock_guard lock(mutex_);
  if (held_from_ == kHoldsNothing) return;
  held_from_ = kHoldsNothing;
  drop_passed();
}

void Sequence::rewind(uint32_t n_tokens) {
  const std::lock_guard lock(mutex_);
  if (n_tokens > tokens_.size())
    throw ValueError("rewind: expected at most the position, " + std::to_string(tokens_.size()) + ", found " +
                     std::to_string(n_tokens));
  if (n_tokens != 0 && n_tokens < rewindable_to())
    throw ValueError("rewind: expected 0 or at least " + std::to_string(rewindable_to()) +
                     ", for windows have passed what was before, found " + std::to_string(n_tokens));
  tokens_.resize(n_tokens);
  claim_most(n_tokens);
  for (PageTable& table : tables_) table.truncate(static_cast<uint32_t>(table.pool().geometry().pages_for(n_tokens)));
  states_.rewind(n_tokens);
  settle();
  encode();
}

uint32_t Sequence::replay(uint32_t position) const {
  const std::lock_guard lock(mutex_);
  if (position > tokens_.size())
    throw ValueError("replay: expected at most the position, " + std::to_string(tokens_.size()) + ", found " +
                     std::to_string(position));
  return states_.any() ? position - states_.nearest(position) : 0;
}

void Sequence::mark_turn() {
  const std::lock_guard lock(mutex_);
  states_.mark_turn(static_cast<uint32_t>(tokens_.size()));
}

uint32_t Sequence::adopt_prefix(std::span<const int32_t> tokens) {
  const std::lock_guard lock(mutex_);
  if (!tokens_.empty() || tokens.size() < 2) return 0;
  make_room(tokens.size(), tokens.size());
  claim_most(0);  // pages that make room for cached ones stay promised
  uint32_t n = 0;
  try {
    n = memory_.prefixes().match(tokens.first(tokens.size() - 1), tables_, states_);  // one is fed, for its logits
  } catch (...) {                                                                     // tables may have moved
    settle();
    encode();
    throw;
  }
  tokens_.assign(tokens.begin(), tokens.begin() + n);
  settle();
  encode();
  return n;
}

void Sequence::drop_prefix() {
  const std::lock_guard lock(mutex_);
  tokens_.clear();
  for (PageTable& table :
       tables_)  // pages that are shared may stay, for a write copies them; a table that begins with holes goes
    if (table.first() != 0) table.truncate(0);
  states_.rewind(0);
  settle();
  encode();
}

void Sequence::keep_prefix() {
  const std::lock_guard lock(mutex_);
  if (!memory_.prefixes().keeps()) return;
  bool with_states = states_.any();
  if (with_states) {  // what the tree shares is no longer this one's own: its successors are claimed before
    next_claims_ = claims_;
    next_claims_.back() += states_.own();
    try {
      memory_.admission().exchange(claims_, next_claims_);
      claims_.swap(next_claims_);
    } catch (const MemoryLimitError&) {
      with_states = false;
    }
  }
  try {
    memory_.prefixes().insert(tokens_, tables_, states_, with_states);
  } catch (...) {
    settle();
    throw;
  }
  settle();
}

void Sequence::take(std::vector<int32_t> tokens, std::span<const uint32_t> first_pages,
                    std::span<const SavedState> states, uint32_t promised) {
  const std::lock_guard lock(mutex_);
  const uint64_t n = std::max<uint64_t>(promised, tokens.size()), more = room_bytes_with(n, n) - charged_bytes_;
  for (size_t g = 0; g < claims_.size(); ++g) next_claims_[g] = memory_.pools()[g]->geometry().most_pages(promised);
  memory_.admission().exchange(claims_, next_claims_, more);
  claims_.swap(next_claims_);
  charged_bytes_ += more;
  make_charged_room(n, n);
  for (size_t g = 0; g < tables_.size(); ++g) {
    tables_[g].drop_before(first_pages[g]);
    tables_[g].grow(static_cast<uint32_t>(tables_[g].pool().geometry().pages_for(tokens.size())));
  }
  states_.take(states);
  tokens_.assign(tokens.begin(), tokens.end());
  promised_ = promised;
  settle();
  encode();
}

void Sequence::clear() noexcept {
  const std::lock_guard lock(mutex_);
  for (PageTable& table : tables_) table.clear();
  states_.clear();
  memory_.admission().drop(claims_);
  tokens_ = {};
  memory_.admission().credit(MemoryUse::page_tables, std::exchange(charged_bytes_, 0));
  promised_ = 0;
  encode();
}

Sequence::Observed Sequence::observe() const {
  const std::lock_guard lock(mutex_);
  Observed o{};
  const ContextMemory::Snapshot now = memory_.snapshot();
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
    group.slab_lengths = now.pools[g].slab_lengths;
    group.slab_bytes = pool.slab_bytes();
    group.used_pages = now.pools[g].used_pages;
  }
  if (states_.any()) {
    for (const States::Kept& one : states_.kept()) o.recurrent.kept.push_back(one.position);
    o.recurrent.running_position = states_.running_position();
    o.recurrent.held = states_.held();
    o.recurrent.page_tokens = states_.pool().geometry().page_tokens;
    o.recurrent.slab_bytes = states_.pool().slab_bytes();
    o.recurrent.slab_lengths = now.pools.back().slab_lengths;
    o.recurrent.used_pages = now.pools.back().used_pages;
  }
  o.ledger_kv_bytes = now.ledger_kv_bytes;
  o.max_seq_len = memory_.max_seq_len();
  o.capacity = capacity();
  o.position = tokens_.size();
  return o;
}

}  // namespace foundry
