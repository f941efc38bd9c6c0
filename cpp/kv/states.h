// What a history's recurrent layers keep, all of them together: a state, which has seen every token up to its
// position. Where K and V have a page for every few tokens, a state stands for all of them, so a history can only go
// on from one that it holds.
//
// Held are `running`, where the history goes on, and some at boundaries of pages, to go back to: the last two, those
// at the ends of turns, and of the others the fewer the further back. States are pages of a pool and never written
// again once a step that made them is committed: forks, snapshots and the prefix tree hold the same ones by
// reference, and what fails has touched none of them. Not thread-safe: the sequence's.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "kv/kv.h"

namespace foundry {

class States {
 public:
  struct Kept {
    uint32_t position;  // tokens seen: whole pages
    PageId page;
    bool turn;  // a turn ended behind it, before the next boundary
  };

  /// Of a model without recurrent layers: null, and nothing is ever held.
  explicit States(PagePool* pool);
  ~States();
  States(const States&) = delete;
  States(States&& other) noexcept;

  bool any() const { return pool_ != nullptr; }
  PagePool& pool() const { return *pool_; }
  /// Where a history of at least `position` tokens can go on from, at most at `position`: 0, or the position of a
  /// state that is held.
  uint32_t nearest(uint32_t position) const;
  uint32_t running_position() const { return running_position_; }
  const std::vector<Kept>& kept() const { return kept_; }
  /// The state that has seen so many tokens, or kNoPage.
  PageId at(uint32_t position) const;
  /// Bytes that one takes beside its pages.
  static uint64_t record_bytes(const KvGeometry& geometry);
  /// Pages that it holds, each counted once; and those that nobody else holds.
  uint64_t held() const;
  uint64_t own() const;

  // A call's rows, from begin() to commit() or undo().
  /// Pages that begin() takes from the pool.
  uint64_t needed(uint32_t start, uint32_t end) const;
  /// Rows start .. end - 1 are about to run; nearest(start) is `start`. All pages or none: MemoryLimitError changes
  /// nothing.
  void begin(uint32_t start, uint32_t end);
  /// How rows first .. end - 1 of them run, cut where a state is kept; row numbers count from `first`.
  std::vector<StateRun> runs(uint32_t first, uint32_t end) const;
  /// The rows up to `end` have run. Pages that then go, at most: those that passing() counts.
  uint64_t passing(uint32_t end) const noexcept;
  void commit(uint32_t end) noexcept;
  void undo() noexcept;
  /// The last boundary up to `position` whose state the rows so far have written, also where a later row was broken
  /// off; or 0.
  uint32_t written(uint32_t position) const;

  /// Back to what a history of `position` tokens holds.
  void rewind(uint32_t position) noexcept;
  /// A turn ended at `position`, at the end of the history.
  void mark_turn(uint32_t position) noexcept;
  /// What another one holds, in place of what is held here; allocates nothing.
  void share(const States& other) noexcept;
  /// An empty one goes on from this state of `position` tokens, whole pages.
  void adopt(uint32_t position, PageId page) noexcept;
  /// An empty one gets pages for those of these states, ascending, that it keeps; their bytes are the caller's.
  /// MemoryLimitError changes nothing.
  void take(std::span<const SavedState> saved);
  void clear() noexcept;

 private:
  PageId retained(PageId page) const;
  void release(PageId& page) noexcept;
  template <class F>
  void thin(std::vector<Kept>& kept, const F& goes) const noexcept;
  std::vector<Kept> chosen(uint32_t start, uint32_t end) const;

  PagePool* pool_;
  std::vector<Kept> kept_;                      // ascending; room for all there can be is made at once
  PageId running_ = kNoPage, spare_ = kNoPage;  // spare: the next one is written to it
  uint32_t running_position_ = 0;
  // Of a call under way.
  std::vector<Kept> fresh_;  // to be kept of it
  PageId from_ = kNoPage, next_ = kNoPage;
  uint32_t start_ = 0;
  bool next_is_new_ = false;  // and goes again if the call fails
};

/// Of states, ascending, where more than the last two are there, which to let go of first, if only those from place
/// `first` on may go: one that is no turn's end, if there is one; and of these the one whose going leaves the least
/// gap for its distance from the end. Their number where none may go.
size_t least_wanted(std::span<const States::Kept> kept, size_t first);

}  // namespace foundry
