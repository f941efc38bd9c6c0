#include "kv/states.h"

#include <algorithm>
#include <string>
#include <utility>

#include "base/error.h"

namespace foundry {
namespace {

/// Of one that is kept at rest, beside those that a call adds before others go.
size_t room_for(const KvGeometry& geometry) { return size_t{geometry.kept_states} + 3; }

}  // namespace

size_t least_wanted(std::span<const States::Kept> kept, size_t first) {
  size_t best = kept.size();
  const auto gap = [&](size_t i) { return uint64_t{kept[i + 1].position} - (i == 0 ? 0 : kept[i - 1].position); };
  const auto distance = [&](size_t i) { return uint64_t{kept.back().position} - kept[i].position; };
  for (size_t i = first; i + 2 < kept.size(); ++i) {
    if (best == kept.size() || kept[best].turn > kept[i].turn)
      best = i;
    else if (kept[best].turn == kept[i].turn && gap(i) * distance(best) < gap(best) * distance(i))
      best = i;
  }
  return best;
}

/// Those that are more than a history keeps go.
template <class F>
void States::thin(std::vector<Kept>& kept, const F& goes) const noexcept {
  while (kept.size() > pool_->geometry().kept_states) {
    const size_t least = least_wanted(kept, 0);
    if (least == kept.size()) return;
    goes(kept[least]);
    kept.erase(kept.begin() + static_cast<std::ptrdiff_t>(least));
  }
}

States::States(PagePool* pool) : pool_(pool) {
  if (pool_ == nullptr) return;
  kept_.reserve(room_for(pool_->geometry()));
  fresh_.reserve(room_for(pool_->geometry()));
}

States::~States() { clear(); }

States::States(States&& other) noexcept
    : pool_(other.pool_),
      kept_(std::exchange(other.kept_, {})),
      running_(std::exchange(other.running_, kNoPage)),
      spare_(std::exchange(other.spare_, kNoPage)),
      running_position_(std::exchange(other.running_position_, 0)),
      fresh_(std::exchange(other.fresh_, {})),
      from_(std::exchange(other.from_, kNoPage)),
      next_(std::exchange(other.next_, kNoPage)),
      start_(other.start_) {}

uint64_t States::record_bytes(const KvGeometry& geometry) { return 2 * room_for(geometry) * sizeof(Kept); }

PageId States::retained(PageId page) const {
  if (page != kNoPage) pool_->retain(page);
  return page;
}

void States::release(PageId& page) noexcept {
  if (page != kNoPage) pool_->release(page);
  page = kNoPage;
}

uint32_t States::nearest(uint32_t position) const {
  uint32_t found = running_position_ <= position ? running_position_ : 0;
  for (const Kept& one : kept_)
    if (one.position <= position) found = std::max(found, one.position);
  return found;
}

PageId States::at(uint32_t position) const {
  if (position == 0) return kNoPage;
  if (position == running_position_) return running_;
  for (const Kept& one : kept_)
    if (one.position == position) return one.page;
  return kNoPage;
}

uint64_t States::held() const {
  std::vector<PageId> pages{running_, spare_, next_};
  for (const auto* list : {&kept_, &fresh_})
    for (const Kept& one : *list) pages.push_back(one.page);
  std::sort(pages.begin(), pages.end());
  pages.erase(std::unique(pages.begin(), pages.end()), pages.end());
  return pages.size() - (pages.back() == kNoPage ? 1 : 0);
}

uint64_t States::own() const {
  uint64_t own = 0;
  const auto count = [&](PageId page, uint32_t references) {
    own += page != kNoPage && pool_->references(page) == references ? 1 : 0;
  };
  bool running_is_kept = false;
  for (const Kept& one : kept_) {
    running_is_kept = running_is_kept || one.page == running_;
    count(one.page, one.page == running_ ? 2 : 1);
  }
  for (const Kept& one : fresh_) count(one.page, 1);
  if (!running_is_kept) count(running_, 1);
  count(spare_, 1);
  count(next_, 1);
  return own;
}

/// Boundaries that a call from `start` to `end` adds to those that are kept: the last two, and others as far as there
/// is room beside what a failed call goes back to.
std::vector<States::Kept> States::chosen(uint32_t start, uint32_t end) const {
  const uint32_t page_tokens = pool_->geometry().page_tokens;
  std::vector<Kept> all = kept_, fresh;
  const size_t old = all.size();
  all.reserve(old + room_for(pool_->geometry()));
  for (uint64_t boundary = (uint64_t{start} / page_tokens + 1) * page_tokens; boundary <= end;
       boundary += page_tokens) {
    const auto position = static_cast<uint32_t>(boundary);
    if (std::any_of(kept_.begin(), kept_.end(), [&](const Kept& one) { return one.position == position; })) continue;
    all.push_back({position, kNoPage, false});
    while (all.size() > pool_->geometry().kept_states) {
      const size_t goes = least_wanted(all, old);
      if (goes == all.size()) break;
      all.erase(all.begin() + static_cast<std::ptrdiff_t>(goes));
    }
  }
  fresh.assign(all.begin() + static_cast<std::ptrdiff_t>(old), all.end());
  return fresh;
}

uint64_t States::needed(uint32_t start, uint32_t end) const {
  return chosen(start, end).size() + (spare_ == kNoPage ? 1 : 0);
}

void States::begin(uint32_t start, uint32_t end) {
  if (nearest(start) != start || next_ != kNoPage)
    throw ConsistencyError("a recurrent layer's rows from " + std::to_string(start) + " on: the nearest state is at " +
                           std::to_string(nearest(start)));
  std::vector<Kept> fresh = chosen(start, end);
  const bool lacks = spare_ == kNoPage;
  const std::vector<PageId> pages = pool_->acquire(static_cast<uint32_t>(fresh.size() + (lacks ? 1 : 0)));
  for (size_t i = 0; i < fresh.size(); ++i) fresh[i].page = pages[i];  // nothing below fails
  fresh_.assign(fresh.begin(), fresh.end());
  next_ = lacks ? pages.back() : std::exchange(spare_, kNoPage);
  next_is_new_ = lacks;
  start_ = start, from_ = at(start);
}

std::vector<StateRun> States::runs(uint32_t first, uint32_t end) const {
  std::vector<StateRun> runs;
  const auto address = [&](PageId page) { return page == kNoPage ? 0 : pool_->address(page); };
  // The state behind a row of the call: one that is kept, or that which is written again and again.
  const auto behind = [&](uint32_t position) {
    for (const Kept& one : fresh_)
      if (one.position == position) return address(one.page);
    return address(next_);
  };
  uint64_t from = first == start_ ? address(from_) : behind(first);
  uint32_t at = first;
  for (size_t i = 0; at < end; ++i) {
    const uint32_t to = i < fresh_.size() ? std::min(fresh_[i].position, end) : end;
    if (to <= at) continue;
    runs.push_back({from, behind(to), at - first, to - at});
    from = runs.back().to, at = to;
  }
  return runs;
}

uint64_t States::passing(uint32_t end) const noexcept {
  const uint64_t all = kept_.size() + fresh_.size(), stay = pool_->geometry().kept_states;
  const bool ends_on_one =
      std::any_of(fresh_.begin(), fresh_.end(), [&](const Kept& one) { return one.position >= end; });
  return all - std::min(all, stay) + (ends_on_one ? fresh_.size() : 0);
}

void States::commit(uint32_t end) noexcept {
  PageId last = running_;
  running_ = kNoPage;
  for (Kept& one : fresh_) {
    if (one.position > end) {
      release(one.page);
      continue;
    }
    if (one.position == end) running_ = retained(one.page);
    kept_.push_back(one);
  }
  fresh_.clear();
  if (running_ == kNoPage) running_ = std::exchange(next_, kNoPage);
  running_position_ = end;
  std::sort(kept_.begin(), kept_.end(), [](const Kept& a, const Kept& b) { return a.position < b.position; });
  thin(kept_, [this](Kept& one) { release(one.page); });
  spare_ = std::exchange(next_, kNoPage);
  next_is_new_ = false;
  if (spare_ == kNoPage && last != kNoPage && pool_->references(last) == 1) spare_ = std::exchange(last, kNoPage);
  release(last);
  from_ = kNoPage;
}

void States::undo() noexcept {
  for (Kept& one : fresh_) release(one.page);
  fresh_.clear();
  if (next_is_new_)
    release(next_);
  else if (next_ != kNoPage)
    spare_ = std::exchange(next_, kNoPage);
  next_is_new_ = false;
  from_ = kNoPage;
}

uint32_t States::written(uint32_t position) const {
  uint32_t found = 0;
  for (const Kept& one : fresh_)
    if (one.position <= position) found = one.position;
  return found;
}

void States::rewind(uint32_t position) noexcept {
  while (!kept_.empty() && kept_.back().position > position) {
    release(kept_.back().page);
    kept_.pop_back();
  }
  if (running_position_ <= position) return;
  release(running_);
  running_position_ = kept_.empty() ? 0 : kept_.back().position;
  if (!kept_.empty()) running_ = retained(kept_.back().page);
}

void States::mark_turn(uint32_t position) noexcept {
  for (auto one = kept_.rbegin(); one != kept_.rend(); ++one)
    if (one->position <= position) {
      one->turn = true;
      return;
    }
}

void States::share(const States& other) noexcept {
  if (!any()) return;
  const PageId running = retained(other.running_);  // first: they may be the same pages
  for (const Kept& one : other.kept_) pool_->retain(one.page);
  for (Kept& one : kept_) release(one.page);
  release(running_);
  kept_.assign(other.kept_.begin(), other.kept_.end());
  running_ = running, running_position_ = other.running_position_;
}

void States::adopt(uint32_t position, PageId page) noexcept {
  if (position == 0) return;
  kept_.push_back({position, retained(page), true});
  running_ = retained(page), running_position_ = position;
}

void States::take(std::span<const SavedState> saved) {
  if (saved.empty()) return;
  std::vector<Kept> kept;
  for (const SavedState& one : saved)
    if (one.position % pool_->geometry().page_tokens == 0) kept.push_back({one.position, kNoPage, one.turn});
  const bool between = kept.empty() || kept.back().position != saved.back().position;
  thin(kept, [](const Kept&) {});
  const std::vector<PageId> pages = pool_->acquire(static_cast<uint32_t>(kept.size() + (between ? 1 : 0)));
  for (size_t i = 0; i < kept.size(); ++i) kept[i].page = pages[i];  // nothing below fails
  kept_.assign(kept.begin(), kept.end());
  running_ = between ? pages.back() : retained(pages.back());
  running_position_ = saved.back().position;
}

void States::clear() noexcept {
  if (!any()) return;
  undo();
  for (Kept& one : kept_) release(one.page);
  kept_.clear();
  release(running_);
  release(spare_);
  running_position_ = 0;
}

}  // namespace foundry
