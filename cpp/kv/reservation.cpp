// How a sequence advances: pages for the rows to come, undone or made history.
#include <algorithm>

#include "kv/sequence.h"

namespace foundry {
namespace {

/// Of token ids: a growth costs the same at any length.
uint64_t ids_room(uint64_t has, uint64_t wanted) { return wanted <= has ? has : std::max(wanted, 2 * has); }

}  // namespace

Reservation Sequence::reserve(uint64_t n_rows, uint32_t back) {
  const std::lock_guard lock(mutex_);
  const uint64_t start = tokens_.size() - back, end = start + n_rows;
  within_context(end);
  return {*this, static_cast<uint32_t>(start), grow_to(end, start, true)};
}

/// Makes positions from `start` to n_tokens writable: pages for them, none of them shared; where rows are to run
/// there, states too. Returns what there was.
Reservation::Before Sequence::grow_to(uint64_t n_tokens, uint64_t start, bool runs) {
  Reservation::Before before{{}, pages_added_};
  before.pages.reserve(tables_.size());
  for (const PageTable& table : tables_) before.pages.push_back(table.size());
  const uint32_t has = capacity();
  // At least the policy's step, at most what the model can ever use.
  const uint64_t target =
      n_tokens <= has ? has
                      : std::min<uint64_t>(std::max<uint64_t>(n_tokens, uint64_t{has} + step_), memory_.max_seq_len());
  Admission::Pages pages(tables_.size());  // of each table, when all is done but the rolling
  make_room(target, n_tokens);
  bool changes = false;
  for (size_t g = 0; g < tables_.size(); ++g) {
    const KvGeometry& geometry = tables_[g].pool().geometry();
    const uint64_t to = geometry.window == 0 ? target : n_tokens;
    pages[g] = geometry.pages_for(tokens_.size()) + geometry.pages_ahead(tokens_.size(), to);
    uint64_t acquired = pages[g] - std::min<uint64_t>(pages[g], tables_[g].size());
    for (uint32_t i = first_written(g, start); i < tables_[g].size(); ++i) acquired += tables_[g].shared(i) ? 1 : 0;
    changes = changes || acquired != 0;
    next_claims_[g] = std::max(claims_[g], acquired);
  }
  const auto first = static_cast<uint32_t>(start), end = static_cast<uint32_t>(n_tokens);
  if (states_.any()) {
    const uint64_t acquired = runs ? states_.needed(first, end) : 0;
    changes = changes || acquired != 0;
    next_claims_.back() = std::max(claims_.back(), acquired);
  }
  if (!changes) {
    if (states_.any() && runs) states_.begin(first, end);
    return before;
  }
  memory_.admission().exchange(claims_, next_claims_);  // what is about to be acquired is claimed first
  claims_.swap(next_claims_);
  try {
    for (size_t g = 0; g < tables_.size(); ++g) {
      for (uint32_t i = first_written(g, start); i < tables_[g].size(); ++i)
        if (tables_[g].shared(i)) tables_[g].unshare(i);
      pages_added_ += tables_[g].grow(static_cast<uint32_t>(std::max<uint64_t>(pages[g], tables_[g].size())));
    }
    if (states_.any() && runs) states_.begin(first, end);
    settle();
  } catch (...) {
    undo(before);
    throw;
  }
  encode();
  return before;
}

uint64_t Sequence::room_bytes() const {
  uint64_t bytes = memory_.table_bytes(0) + tokens_.capacity() * sizeof(int32_t);
  for (const PageTable& table : tables_) bytes += table.bytes();
  return bytes;
}

uint64_t Sequence::room_bytes_with(uint64_t target, uint64_t n_tokens) const {
  uint64_t bytes = memory_.table_bytes(0) + ids_room(tokens_.capacity(), n_tokens) * sizeof(int32_t);
  for (const PageTable& table : tables_) {
    const KvGeometry& geometry = table.pool().geometry();
    bytes += table.bytes_with(static_cast<uint32_t>(geometry.pages_for(geometry.window == 0 ? target : n_tokens)));
  }
  return bytes;
}

/// Room in the tables for so many tokens; where they lie is told to kernels anew.
void Sequence::make_room(uint64_t target, uint64_t n_tokens) {
  const uint64_t more = room_bytes_with(target, n_tokens) - charged_bytes_;
  if (more != 0) memory_.admission().charge(MemoryUse::page_tables, more);
  charged_bytes_ += more;
  make_charged_room(target, n_tokens);
}

void Sequence::make_charged_room(uint64_t target, uint64_t n_tokens) {
  try {
    for (PageTable& table : tables_) {
      const KvGeometry& geometry = table.pool().geometry();
      table.make_room(static_cast<uint32_t>(geometry.pages_for(geometry.window == 0 ? target : n_tokens)));
    }
    tokens_.reserve(ids_room(tokens_.capacity(), n_tokens));
  } catch (...) {
    memory_.admission().credit(MemoryUse::page_tables, charged_bytes_ - room_bytes());
    charged_bytes_ = room_bytes();
    encode();
    throw;
  }
  encode();
}

void Sequence::undo(const Reservation::Before& before) noexcept {
  claim_most(tokens_.size());
  for (size_t g = 0; g < tables_.size(); ++g)
    tables_[g].unroll(static_cast<uint32_t>(tables_[g].pool().geometry().pages_for(tokens_.size())), before.pages[g]);
  states_.undo();
  pages_added_ = before.pages_added;
  settle();
  encode();
}

uint64_t Sequence::first_kept(const KvGeometry& geometry) const {
  const uint64_t kept = geometry.first_kept(tokens_.size());
  if (geometry.window == 0 || held_from_ >= tokens_.size()) return kept;
  const uint64_t spare = geometry.step_pages() - 2;  // promised for long steps; a step of a generation is one token
  return std::max(geometry.first_kept(held_from_), kept - std::min(kept, spare));
}

void Sequence::drop_passed() {
  bool drops = false;
  for (size_t g = 0; g < tables_.size(); ++g) {
    const uint64_t kept = first_kept(tables_[g].pool().geometry()),
                   passed = kept - std::min<uint64_t>(kept, tables_[g].first());
    drops = drops || passed != 0;
    next_claims_[g] = claims_[g] + passed;  // what goes may be promised: claimed before anybody else gets it
  }
  if (!drops) return;
  memory_.admission().settle(claims_, next_claims_);
  claims_.swap(next_claims_);
  for (PageTable& table : tables_) table.drop_before(static_cast<uint32_t>(first_kept(table.pool().geometry())));
  settle();
  encode();
}

Reservation::~Reservation() {
  if (of_ == nullptr) return;
  const std::lock_guard lock(of_->mutex_);
  of_->undo(before_);
}

std::span<const SequenceParams> Reservation::globals() const { return of_->globals_; }

std::vector<StateRun> Reservation::state_runs(uint64_t first, uint64_t end) const {
  const std::lock_guard lock(of_->mutex_);
  if (!of_->states_.any()) return {};
  return of_->states_.runs(static_cast<uint32_t>(first), static_cast<uint32_t>(end));
}

uint64_t Reservation::keepable(uint64_t n_rows) const {
  const std::lock_guard lock(of_->mutex_);
  if (!of_->states_.any()) return n_rows;
  const uint32_t at = of_->states_.written(static_cast<uint32_t>(start_ + n_rows));
  return at - std::min(at, start_);
}

bool Reservation::grew() const {
  const std::lock_guard lock(of_->mutex_);
  for (size_t g = 0; g < before_.pages.size(); ++g)
    if (of_->tables_[g].size() != before_.pages[g]) return true;
  return false;
}

void Reservation::roll_to(uint64_t first, uint64_t end) {
  const std::lock_guard lock(of_->mutex_);
  bool rolls = false;
  for (PageTable& table : of_->tables_) {
    const KvGeometry& geometry = table.pool().geometry();
    const auto pages = static_cast<uint32_t>(geometry.pages_for(end));
    if (pages <= table.size()) continue;
    const uint64_t seen = first - std::min<uint64_t>(first, geometry.window - 1);
    // What the history holds is not taken: a failed call goes back to it.
    table.roll(static_cast<uint32_t>(geometry.pages_for(of_->tokens_.size())),
               static_cast<uint32_t>(seen / geometry.page_tokens), pages);
    rolls = true;
  }
  if (rolls) of_->encode();
}

void Reservation::commit(std::span<const int32_t> tokens) {
  Sequence& s = *std::exchange(of_, nullptr);
  const std::lock_guard lock(s.mutex_);
  s.tokens_.insert(s.tokens_.end(), tokens.begin(), tokens.end());
  s.drop_passed();
  if (!s.states_.any()) return;
  const auto end = static_cast<uint32_t>(s.tokens_.size());
  s.next_claims_ = s.claims_;
  s.next_claims_.back() += s.states_.passing(end);  // states that go stay promised
  s.memory_.admission().settle(s.claims_, s.next_claims_);
  s.claims_.swap(s.next_claims_);
  s.states_.commit(end);
  s.settle();
}

}  // namespace foundry
