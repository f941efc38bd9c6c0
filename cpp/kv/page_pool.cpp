#include <string>
#include <utility>

#include "base/error.h"
#include "kv/kv.h"

namespace foundry {

struct PagePool::Slab {
  std::unique_ptr<Buffer> buffer;
  std::vector<uint32_t> references;  // by page; 0: free
  uint32_t used = 0;
};

PagePool::PagePool(DeviceMemory& memory, MemoryLedger& ledger, KvGeometry geometry, uint32_t slab_pages)
    : memory_(memory), ledger_(ledger), geometry_(geometry), slab_pages_(slab_pages) {
  geometry_.check();
  if (slab_pages_ == 0) throw ValueError("slab_pages: expected at least 1, found 0");
}

PagePool::~PagePool() {
  for (const auto& slab : slabs_)
    if (slab != nullptr) ledger_.credit(MemoryUse::kv, slab->buffer->bytes());
}

std::vector<PageId> PagePool::acquire(uint32_t n) {
  const std::lock_guard lock(mutex_);
  std::vector<PageId> pages;
  pages.reserve(n);

  // Plan: the slabs that are missing. Whatever throws here leaves the pool as it was.
  uint64_t free = 0;
  for (const auto& slab : slabs_)
    if (slab != nullptr) free += slab_pages_ - slab->used;
  std::vector<std::unique_ptr<Slab>> added;
  const uint64_t missing = n > free ? (n - free + slab_pages_ - 1) / slab_pages_ : 0;
  added.reserve(missing);
  slabs_.reserve(slabs_.size() + missing);
  uint64_t charged = 0;
  try {
    for (uint64_t i = 0; i < missing; ++i) {
      auto slab = std::make_unique<Slab>();
      slab->references.assign(slab_pages_, 0);
      ledger_.charge(MemoryUse::kv, slab_bytes());
      charged += slab_bytes();
      slab->buffer = memory_.allocate(slab_bytes(), MemoryKind::device);
      added.push_back(std::move(slab));
    }
  } catch (...) {
    ledger_.credit(MemoryUse::kv, charged);
    throw;
  }

  // Apply: nothing below allocates.
  size_t place = 0;
  for (auto& slab : added) {
    while (place < slabs_.size() && slabs_[place] != nullptr) ++place;
    if (place == slabs_.size())
      slabs_.push_back(std::move(slab));
    else
      slabs_[place] = std::move(slab);
  }
  // From the fullest slab first, the lowest place first among equals: emptier ones get a chance to be released.
  while (pages.size() < n) {
    size_t best = slabs_.size();
    for (size_t s = 0; s < slabs_.size(); ++s)
      if (slabs_[s] != nullptr && slabs_[s]->used < slab_pages_ &&
          (best == slabs_.size() || slabs_[s]->used > slabs_[best]->used))
        best = s;
    Slab& slab = *slabs_[best];
    for (uint32_t i = 0; i < slab_pages_ && pages.size() < n; ++i) {
      if (slab.references[i] != 0) continue;
      slab.references[i] = 1;
      ++slab.used;
      if (!poison_.empty()) memory_.upload({slab.buffer.get(), i * geometry_.page_bytes()}, poison_);
      pages.push_back(static_cast<PageId>(best * slab_pages_ + i));
    }
  }
  return pages;
}

void PagePool::retain(PageId page) {
  const std::lock_guard lock(mutex_);
  ++slabs_.at(page / slab_pages_)->references.at(page % slab_pages_);
}

void PagePool::release(PageId page) {
  const std::lock_guard lock(mutex_);
  std::unique_ptr<Slab>& slab = slabs_.at(page / slab_pages_);
  if (--slab->references.at(page % slab_pages_) != 0) return;
  if (--slab->used != 0) return;
  const uint64_t bytes = slab->buffer->bytes();
  slab.reset();
  ledger_.credit(MemoryUse::kv, bytes);
  while (!slabs_.empty() && slabs_.back() == nullptr) slabs_.pop_back();
}

uint32_t PagePool::references(PageId page) const {
  const std::lock_guard lock(mutex_);
  return slabs_.at(page / slab_pages_)->references.at(page % slab_pages_);
}

void PagePool::copy(PageId from, PageId to) { memory_.copy(span(from), span(to), geometry_.page_bytes()); }

uint64_t PagePool::address(PageId page) const {
  const std::lock_guard lock(mutex_);
  return slabs_.at(page / slab_pages_)->buffer->address() + (page % slab_pages_) * geometry_.page_bytes();
}

Span PagePool::span(PageId page) const {
  const std::lock_guard lock(mutex_);
  return {slabs_.at(page / slab_pages_)->buffer.get(), (page % slab_pages_) * geometry_.page_bytes()};
}

uint64_t PagePool::slab_bytes() const { return slab_pages_ * geometry_.page_bytes(); }

uint64_t PagePool::held_bytes() const {
  uint64_t bytes = 0;
  for (const uint64_t length : slab_lengths()) bytes += length;
  return bytes;
}

uint32_t PagePool::used_pages() const {
  const std::lock_guard lock(mutex_);
  uint32_t used = 0;
  for (const auto& slab : slabs_)
    if (slab != nullptr) used += slab->used;
  return used;
}

uint32_t PagePool::free_pages() const { return slab_count() * slab_pages_ - used_pages(); }

uint32_t PagePool::slab_count() const { return static_cast<uint32_t>(slab_lengths().size()); }

std::vector<uint64_t> PagePool::slab_lengths() const {
  const std::lock_guard lock(mutex_);
  std::vector<uint64_t> lengths;
  for (const auto& slab : slabs_)
    if (slab != nullptr) lengths.push_back(slab->buffer->bytes());
  return lengths;
}

std::pair<std::vector<uint64_t>, uint64_t> PagePool::figures(const std::unique_lock<RankedMutex>&) const {
  std::pair<std::vector<uint64_t>, uint64_t> figures{{}, 0};
  for (const auto& slab : slabs_) {
    if (slab == nullptr) continue;
    figures.first.push_back(slab->buffer->bytes());
    figures.second += slab->used;
  }
  return figures;
}

void PagePool::set_poison(bool on) {
  const std::lock_guard lock(mutex_);
  poison_.assign(on ? geometry_.page_bytes() : 0, std::byte{0xff});
}

}  // namespace foundry
