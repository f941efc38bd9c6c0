#include <algorithm>
#include <utility>

#include "base/error.h"
#include "kv/kv.h"

namespace foundry {
namespace {
// The least room. Addresses are a buffer of their own, which takes at least a page of the system's: this is one, so
// what is charged is what is resident.
constexpr uint64_t kLeastAddresses = 512;
constexpr uint64_t kLeastIds = 64;

/// A growth costs the same at any length.
uint64_t grown(uint64_t room, uint64_t wanted, uint64_t least) {
  return wanted <= room ? room : std::max({2 * room, wanted, least});
}
}  // namespace

PageTable::PageTable(PageTable&& other) noexcept
    : pool_(other.pool_),
      pages_(std::exchange(other.pages_, {})),
      addresses_(std::move(other.addresses_)),
      room_(std::exchange(other.room_, 0)),
      ids_room_(std::exchange(other.ids_room_, 0)),
      first_(std::exchange(other.first_, 0)),
      held_(std::exchange(other.held_, 0)) {}

uint32_t PageTable::grow(uint32_t n_pages) {
  if (n_pages <= size()) return 0;
  const uint32_t added = n_pages - size();
  make_room(n_pages);
  for (const PageId page : pool_->acquire(added)) append(page, pool_->address(page));
  held_ += added;
  return added;
}

PageTable PageTable::share(uint32_t n_pages) const {
  PageTable table(*pool_);
  table.make_room(n_pages);
  table.take(std::span(pages_).first(n_pages), first_);
  return table;
}

void PageTable::take(std::span<const PageId> pages, uint32_t first) {
  const auto n_pages = static_cast<uint32_t>(pages.size());
  truncate(0);
  drop_before(std::min(first, n_pages));
  for (uint32_t i = size(); i < n_pages; ++i) put(i, pages[i]);
}

void PageTable::unshare(uint32_t index) {
  const PageId own = pool_->acquire(1).front();
  pool_->copy(pages_.at(index), own);
  pool_->release(pages_[index]);
  pages_[index] = own;
  set(index, pool_->address(own));
}

void PageTable::make_room(uint32_t n_pages) {
  if (const uint64_t room = ids_room_with(n_pages); room != ids_room_) {
    pages_.reserve(room);
    ids_room_ = room;
  }
  const uint64_t room = room_with(n_pages);
  if (room == room_) return;
  std::unique_ptr<Buffer> addresses = pool_->allocate_table(room);
  std::copy_n(address(0), pages_.size(), reinterpret_cast<uint64_t*>(addresses->host()));
  addresses_ = std::move(addresses);
  addresses_->wrote(0, pages_.size() * sizeof(uint64_t));
  room_ = room;
}

uint64_t PageTable::room_with(uint32_t n_pages) const { return grown(room_, n_pages, kLeastAddresses); }

uint64_t PageTable::ids_room_with(uint32_t n_pages) const { return grown(ids_room_, n_pages, kLeastIds); }

uint64_t PageTable::bytes_with(uint32_t n_pages) const { return bytes_of(room_with(n_pages), ids_room_with(n_pages)); }

void PageTable::clear() {
  truncate(0);
  pages_ = {};
  addresses_ = nullptr;
  room_ = ids_room_ = 0;
}

uint64_t* PageTable::address(uint32_t index) const {
  return addresses_ == nullptr ? nullptr : reinterpret_cast<uint64_t*>(addresses_->host()) + index;
}

void PageTable::set(uint32_t index, uint64_t at) {
  *address(index) = at;
  addresses_->wrote(index * sizeof(uint64_t), sizeof(uint64_t));
}

void PageTable::append(PageId page, uint64_t at) {
  make_room(size() + 1);
  pages_.push_back(page);
  set(size() - 1, at);
}

void PageTable::hole(uint32_t index) {
  if (pages_[index] == kNoPage) return;
  pool_->release(pages_[index]);
  pages_[index] = kNoPage;
  set(index, 0);
  --held_;
}

void PageTable::put(uint32_t index, PageId page) {
  pool_->retain(page);
  if (index < size()) {
    hole(index);
    pages_[index] = page;
    set(index, pool_->address(page));
  } else {
    append(page, pool_->address(page));
  }
  ++held_;
}

void PageTable::drop_before(uint32_t index) {
  if (index <= first_) return;
  for (uint32_t i = first_; i < index; ++i) {
    if (i < size()) {
      hole(i);
    } else {
      append(kNoPage, 0);
    }
  }
  first_ = index;
}

void PageTable::roll(uint32_t from, uint32_t end, uint32_t n_pages) {
  for (uint32_t i = from; size() < n_pages; ++i) {
    if (i >= end) throw ConsistencyError("a window's pages do not reach as far as was planned");
    if (pages_.at(i) == kNoPage) continue;
    append(std::exchange(pages_[i], kNoPage), *address(i));
    set(i, 0);
  }
}

void PageTable::unroll(uint32_t from, uint32_t n_pages) {
  for (uint32_t i = from; i < n_pages && i < size(); ++i) {
    if (pages_[i] != kNoPage) continue;
    while (pages_.back() == kNoPage) pages_.pop_back();
    if (size() <= n_pages) break;
    pages_[i] = pages_.back();
    set(i, *address(size() - 1));
    pages_.pop_back();
  }
  truncate(n_pages);
}

void PageTable::truncate(uint32_t n_pages) {
  while (size() > n_pages) {
    hole(size() - 1);
    pages_.pop_back();
  }
  first_ = std::min(first_, n_pages);
}

}  // namespace foundry
