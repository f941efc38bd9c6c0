#include <algorithm>
#include <utility>

#include "kv/kv.h"

namespace foundry {

PageTable::PageTable(PageTable&& other) noexcept
    : pool_(other.pool_), pages_(std::exchange(other.pages_, {})), addresses_(std::exchange(other.addresses_, {})) {}

uint32_t PageTable::grow(uint32_t n_pages) {
  if (n_pages <= size()) return 0;
  const uint32_t added = n_pages - size();
  make_room(n_pages);
  for (const PageId page : pool_->acquire(added)) {
    pages_.push_back(page);
    addresses_.push_back(pool_->address(page));
  }
  return added;
}

PageTable PageTable::share(uint32_t n_pages) const {
  PageTable table(*pool_);
  table.pages_.reserve(n_pages);
  table.addresses_.reserve(n_pages);
  for (uint32_t i = 0; i < n_pages; ++i) {
    pool_->retain(pages_.at(i));
    table.pages_.push_back(pages_[i]);
    table.addresses_.push_back(addresses_[i]);
  }
  return table;
}

void PageTable::unshare(uint32_t index) {
  const PageId own = pool_->acquire(1).front();
  pool_->copy(pages_.at(index), own);
  pool_->release(pages_[index]);
  pages_[index] = own;
  addresses_[index] = pool_->address(own);
}

void PageTable::make_room(uint32_t n_pages) {
  if (n_pages <= pages_.capacity() && n_pages <= addresses_.capacity()) return;
  const size_t room = std::max<size_t>(2 * pages_.capacity(), n_pages);  // a growth costs the same at any length
  pages_.reserve(room);
  addresses_.reserve(room);
}

void PageTable::put(uint32_t index, PageId page) {
  pool_->retain(page);
  if (index < size()) {
    pool_->release(pages_[index]);
    pages_[index] = page;
    addresses_[index] = pool_->address(page);
  } else {
    pages_.push_back(page);
    addresses_.push_back(pool_->address(page));
  }
}

void PageTable::truncate(uint32_t n_pages) {
  while (size() > n_pages) {
    pool_->release(pages_.back());
    pages_.pop_back();
    addresses_.pop_back();
  }
}

}  // namespace foundry
