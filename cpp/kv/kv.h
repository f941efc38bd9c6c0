// Context memory: geometry, pool, table. Knows buffers; knows no model and no graph.
// Layout in a page: [layer][kv_head][K|V] (params.h, KvParams). Strides come from the geometry and never depend on
// capacity, so growing changes no stride, moves no page and copies no byte.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "base/ledger.h"
#include "base/lock_order.h"
#include "device/memory.h"
#include "formats/dtype.h"
#include "params.h"

namespace foundry {

/// One layer group's page: page_tokens tokens of K and V for each of its layers. Or, of recurrent layers, a state:
/// what each of them has made of all tokens up to a boundary of pages.
struct KvGeometry {
  uint32_t n_layers = 0;
  uint32_t n_kv_heads = 0;
  uint32_t head_dim = 0;
  uint32_t window = 0;        // tokens that a row sees, itself included; 0: all
  uint32_t step_tokens = 0;   // of a windowed group: rows that one step brings at most
  uint32_t page_tokens = 64;  // divides kSegmentTokens
  uint32_t tile_tokens = 16;
  DType k_type = DType::f16;
  DType v_type = DType::f16;
  uint64_t state_bytes =
      0;  // of a layer; not 0: the group is recurrent, and of all others only n_layers and page_tokens count
  uint32_t kept_states = 0;  // at most, by one history at rest (kv/states.h)

  bool recurrent() const { return state_bytes != 0; }
  uint64_t k_part_bytes() const;
  uint64_t v_part_bytes() const;
  uint64_t page_bytes() const;
  /// Pages that hold n_tokens.
  uint64_t pages_for(uint64_t n_tokens) const;
  /// Index of the first page that a history of n_tokens keeps. Where there is a window that is the one its last row
  /// begins to see, or before: the last row can be run again.
  uint64_t first_kept(uint64_t n_tokens) const;
  /// The least history to which one that begins at page `first` can be rewound, its last row run again.
  uint64_t rewindable_to(uint64_t first) const { return first == 0 ? 0 : first * page_tokens + window; }
  /// Windowed: pages that the rows of one step see and fill, wherever they begin.
  uint64_t step_pages() const { return (uint64_t{window} + step_tokens - 1) / page_tokens + 2; }
  /// Most pages held at once on the way to n_tokens: all of them, or a kept window (a failed call goes back to it)
  /// and a step's. Most states: those that are kept with a call's last two, where the history is, and the next one
  /// while it is made.
  uint64_t most_pages(uint64_t n_tokens) const;
  /// Pages behind a history of n_tokens that a call must have before it begins, to reach `to`: a window takes the same
  /// ones again.
  uint64_t pages_ahead(uint64_t n_tokens, uint64_t to) const;
  KvParams params() const;
  /// Throws ValueError: page_tokens must divide kSegmentTokens, tile must divide the page, both types must be formats
  /// that keep K and V, and head_dim be a multiple of 8 and of their blocks.
  void check() const;
};

using PageId = uint32_t;
inline constexpr PageId kNoPage = UINT32_MAX;

/// A state that a saved history has.
struct SavedState {
  uint32_t position;  // tokens seen
  bool turn;          // a turn ended behind it, before the next boundary of pages
};

/// Pages by reference count, out of slabs (one device buffer of several pages) that are added as needed and released
/// when empty. Thread-safe. Every slab is charged to the ledger before it is allocated.
class PagePool {
 public:
  PagePool(DeviceMemory& memory, MemoryLedger& ledger, KvGeometry geometry, uint32_t slab_pages);
  ~PagePool();  // all pages must have been returned
  PagePool(const PagePool&) = delete;

  const KvGeometry& geometry() const { return geometry_; }
  uint32_t slab_pages() const { return slab_pages_; }

  /// All n pages or none: MemoryLimitError changes nothing. Each comes with one reference.
  std::vector<PageId> acquire(uint32_t n);
  void retain(PageId page);
  /// Drops a reference; the last one frees the page, and the last page of a slab frees the slab.
  void release(PageId page);
  uint32_t references(PageId page) const;
  /// Copies a page's bytes, in order with steps. Both must be held, and nothing may be reading `to`.
  void copy(PageId from, PageId to);
  uint64_t address(PageId page) const;
  /// Where a table keeps n_pages addresses for kernels to read.
  std::unique_ptr<Buffer> allocate_table(uint64_t n_pages) {
    return memory_.allocate(n_pages * sizeof(uint64_t), MemoryKind::mirrored);
  }
  /// Where its bytes are: `device` memory, for memory() to upload and download.
  Span span(PageId page) const;
  DeviceMemory& memory() const { return memory_; }

  uint64_t slab_bytes() const;  // of one slab
  uint64_t held_bytes() const;  // of all slabs, from the buffers' own lengths
  uint32_t free_pages() const;  // inside the slabs
  uint32_t used_pages() const;
  uint32_t slab_count() const;
  std::vector<uint64_t> slab_lengths() const;  // each buffer's own length
  /// While it is held nobody takes or gives a page, and the pool's slabs are what the ledger says.
  std::unique_lock<RankedMutex> freeze() const { return std::unique_lock(mutex_); }
  /// Each slab's own length, and used pages, while frozen.
  std::pair<std::vector<uint64_t>, uint64_t> figures(const std::unique_lock<RankedMutex>& frozen) const;
  /// Fill newly acquired pages with 0xFF (NaN in every float type): tests see any read past what was written.
  void set_poison(bool on);

 private:
  struct Slab;
  DeviceMemory& memory_;
  MemoryLedger& ledger_;
  KvGeometry geometry_;
  uint32_t slab_pages_;
  std::vector<std::byte> poison_;  // a page of it, or none
  mutable RankedMutex mutex_{LockRank::pool};
  std::vector<std::unique_ptr<Slab>> slabs_;  // empty places are reused; a PageId is place * slab_pages + index
};

/// A session's pages of one group, position -> page, and the addresses as kernels read them. Not thread-safe: the
/// session's. Pages that a window has passed are holes: no page, address 0. They lie before first(), and during a call
/// among the pages that it has filled itself.
class PageTable {
 public:
  explicit PageTable(PagePool& pool) : pool_(&pool) {}
  ~PageTable() { truncate(0); }
  PageTable(const PageTable&) = delete;
  PageTable(PageTable&& other) noexcept;

  /// Appends pages until n_pages are held; all or nothing (MemoryLimitError). Returns pages added.
  uint32_t grow(uint32_t n_pages);
  /// Gives back every page behind the first n_pages.
  void truncate(uint32_t n_pages);
  /// The first n_pages, shared: no byte is copied.
  PageTable share(uint32_t n_pages) const;
  /// The same from another table of the pool, in place of what is held. Allocates only past make_room.
  void take(std::span<const PageId> pages, uint32_t first);
  bool shared(uint32_t index) const { return pages_.at(index) != kNoPage && pool_->references(pages_[index]) > 1; }
  /// Puts a copy of its own in the place of a shared page; MemoryLimitError changes nothing.
  void unshare(uint32_t index);
  /// Shares `page` at this index, in place of what is there or behind the last. Allocates only past make_room.
  void put(uint32_t index, PageId page);
  void make_room(uint32_t n_pages);
  /// Bytes that the table takes beside its pages, with the room that it has; the same once it has room for n_pages.
  uint64_t bytes() const { return bytes_of(room_, ids_room_); }
  uint64_t bytes_with(uint32_t n_pages) const;
  /// Gives back all pages, and the room.
  void clear();
  /// Gives back the pages before `index`, which become holes, appended where they are missing. Allocates only past
  /// make_room.
  void drop_before(uint32_t index);
  /// Takes pages from `from` on and before `end`, which nobody reads any more, and puts them behind the last until
  /// there are n_pages.
  void roll(uint32_t from, uint32_t end, uint32_t n_pages);
  /// Undoes rolls: pages from behind fill the holes in from .. n_pages, the others are given back.
  void unroll(uint32_t from, uint32_t n_pages);
  uint32_t size() const { return static_cast<uint32_t>(pages_.size()); }  // holes included
  uint32_t first() const { return first_; }
  uint32_t held() const { return held_; }  // holes left out
  const std::vector<PageId>& pages() const { return pages_; }
  /// u64 [size()], each the address of a page; in `mirrored` memory, at addresses_at() as kernels see it.
  std::span<const uint64_t> addresses() const { return {address(0), pages_.size()}; }
  uint64_t addresses_at() const { return addresses_ == nullptr ? 0 : addresses_->address(); }
  PagePool& pool() const { return *pool_; }

 private:
  void hole(uint32_t index);
  void append(PageId page, uint64_t address);
  uint64_t* address(uint32_t index) const;
  void set(uint32_t index, uint64_t address);
  static uint64_t bytes_of(uint64_t room, uint64_t ids_room) {
    return room * sizeof(uint64_t) + ids_room * sizeof(PageId);
  }
  uint64_t room_with(uint32_t n_pages) const;
  uint64_t ids_room_with(uint32_t n_pages) const;

  PagePool* pool_;
  std::vector<PageId> pages_;
  std::unique_ptr<Buffer> addresses_;  // u64 [room_]
  uint64_t room_ = 0, ids_room_ = 0;   // addresses and ids that fit
  uint32_t first_ = 0, held_ = 0;
};

/// The one function behind every max_seq_len that a kernel sees: n_pages * page_tokens, at most arch_max_seq_len.
uint32_t capacity_tokens(uint32_t n_pages, uint32_t page_tokens, uint32_t arch_max_seq_len);

}  // namespace foundry
