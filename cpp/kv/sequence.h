// A history: its tokens, the pages that hold their K/V, and what it is promised. It sees context memory alone.
// Every way to advance it is reserve(), a run of kernels, commit(). A reservation that is not committed undoes itself.
//
// One call at a time changes a sequence (its session sees to that); figures() and fork() may come from any thread at
// any moment, and see what has been committed.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "kv/context_memory.h"
#include "kv/states.h"

namespace foundry {

class Sequence;

/// Rows that a sequence is about to take: their pages are there, and none of them is shared.
class Reservation {
 public:
  Reservation(Reservation&& other) noexcept
      : of_(std::exchange(other.of_, nullptr)), start_(other.start_), before_(std::move(other.before_)) {}
  /// What was not committed is undone: the sequence is as it was.
  ~Reservation();

  /// Position of the first row.
  uint32_t start() const { return start_; }
  /// As kernels are given them, by layer group; valid until the next roll_to().
  std::span<const SequenceParams> globals() const;
  /// Pages were added for it.
  bool grew() const;
  /// How rows at positions first .. end - 1 go through recurrent layers, row numbers counted from `first`; none where
  /// there are none.
  std::vector<StateRun> state_runs(uint64_t first, uint64_t end) const;
  /// Of the rows that have run, how many can be committed where a later one was broken off: recurrent layers need a
  /// state that it has not touched.
  uint64_t keepable(uint64_t n_rows) const;
  /// The next rows to run are at positions first .. end - 1: windowed groups take pages there that earlier rows of the
  /// call no longer see. Nothing may be reading them.
  void roll_to(uint64_t first, uint64_t end);
  /// The rows have run, and these tokens are the history's next ones. Pages that windows have passed go.
  void commit(std::span<const int32_t> tokens);

 private:
  friend class Sequence;
  struct Before {
    std::vector<uint32_t> pages;  // by group
    uint64_t pages_added = 0;
  };
  Reservation(Sequence& of, uint32_t start, Before before) : of_(&of), start_(start), before_(std::move(before)) {}
  Sequence* of_;
  uint32_t start_;
  Before before_;
};

class Sequence {
 public:
  struct Figures {
    uint32_t position = 0;       // tokens committed
    uint32_t capacity = 0;       // tokens that the pages cover; groups with a window count where there are no others
    uint32_t rewindable_to = 0;  // the least position, apart from 0, that rewind() can go back to
    uint32_t promised = 0;       // tokens
    uint64_t kv_bytes = 0;       // of the pages held, and of states
    uint64_t state_bytes = 0;    // of the states among them
    uint64_t pages_added = 0;    // since the history began, its initial pages left out
  };
  /// What kernels are told and what there is, each figure from its own place, at one moment.
  struct Observed {
    struct Group {
      uint64_t window;
      uint64_t encoded_pages, table_pages_at;  // addresses of the table
      uint64_t encoded_max_seq_len, encoded_n_pages, encoded_first_page, encoded_page_tokens, encoded_page_bytes;
      uint64_t table_pages, table_first, table_held, table_addresses, table_nulls;  // nulls: addresses of no page
      uint64_t slab_bytes, used_pages;
      std::vector<uint64_t> slab_lengths;
    };
    struct Recurrent {
      std::vector<uint64_t> kept;  // positions
      uint64_t running_position = 0, held = 0, used_pages = 0, page_tokens = 0, slab_bytes = 0;
      std::vector<uint64_t> slab_lengths;
    };
    std::vector<Group> groups;
    Recurrent recurrent;
    uint64_t ledger_kv_bytes, max_seq_len, capacity, position;
  };

  explicit Sequence(ContextMemory& memory);
  ~Sequence();
  Sequence(const Sequence&) = delete;

  Figures figures() const;
  /// Of the pages held, bytes of those that others hold too: forks, and the prefix tree.
  uint64_t shared_bytes() const;
  std::vector<int32_t> tokens() const;
  Observed observe() const;
  std::vector<SequenceParams> globals() const;
  /// Holds pages for n_tokens from now on, so that the first steps find them.
  void hold(uint32_t n_tokens);
  /// Room for n_tokens in all will be had, whatever others do. ContextOverflowError, MemoryLimitError.
  void promise(uint32_t n_tokens);
  /// From here on a growth adds at least so many tokens.
  void set_step(uint32_t n_tokens);
  /// A sequence of its own with the committed history and the promise, on the same pages: no K/V byte is copied. The
  /// first write to a shared page, by whoever makes it, copies that page.
  std::unique_ptr<Sequence> fork();
  /// Of a history that ends at `position`, which is at most the committed one: tokens that must run again before
  /// others can follow it, for recurrent layers go on from a state that is held. 0 where there are none.
  uint32_t replay(uint32_t position) const;
  /// A turn ends with the history as it is: the state nearest to its end stays longer than others.
  void mark_turn();
  /// ContextOverflowError where n_rows more would pass the model's last position.
  void require_room(uint64_t n_rows) const;
  /// What is committed now, to go back to: its pages are held beside, and promised nothing.
  class Snapshot {
   public:
    ~Snapshot();
    Snapshot(Snapshot&& other) noexcept = default;

   private:
    friend class Sequence;
    struct Group {
      PagePool* pool;
      std::vector<PageId> pages;  // kNoPage: a hole
      uint32_t first;
    };
    explicit Snapshot(const States& states);
    std::vector<int32_t> tokens_;
    std::vector<Group> groups_;
    States states_;
  };
  Snapshot snapshot() const;
  /// Goes back to the history of a snapshot of this sequence: its own is given back. Allocates nothing, for room never
  /// shrinks.
  void go_back(const Snapshot& snapshot) noexcept;
  /// Pages for n_rows behind the last `back` committed tokens, which are run again: recurrent layers need `back` to
  /// be replay() of where it begins, and what follows. MemoryLimitError changes nothing.
  Reservation reserve(uint64_t n_rows, uint32_t back = 0);
  /// Back to the first n_tokens; whole pages behind them are returned. ValueError between 0 and rewindable_to.
  void rewind(uint32_t n_tokens);
  /// An empty history takes over the pages of the longest known prefix of `tokens`, but for the last one; returns its
  /// tokens.
  uint32_t adopt_prefix(std::span<const int32_t> tokens);
  /// Until let_go(), windows keep what rows from this position on see, so that rewind() can go back to it; at most the
  /// pages that are promised for a step, which a decode does not need.
  void hold_from(uint32_t position);
  void let_go();
  /// What was adopted is forgotten again.
  void drop_prefix();
  /// Whole pages of this history are kept for others that begin alike.
  void keep_prefix();
  /// A saved history: the pages are taken, from `first_pages` (by group) on, and of states those at `states`; their
  /// bytes are the caller's to read.
  void take(std::vector<int32_t> tokens, std::span<const uint32_t> first_pages, std::span<const SavedState> states,
            uint32_t promised);
  /// Everything is given back.
  void clear() noexcept;

  /// For who reads or writes pages' bytes while no step of this sequence runs.
  std::vector<PageTable>& tables() { return tables_; }
  const States& states() const { return states_; }
  ContextMemory& memory() { return memory_; }

 private:
  friend class Reservation;
  friend struct SequenceTester;  // tests bend a figure, to see that it is noticed
  // Under mutex_.
  void inherit(const Sequence& parent);
  void within_context(uint64_t n_tokens) const;
  void encode();
  uint32_t capacity() const;
  uint32_t rewindable_to() const;
  uint64_t claim_of(size_t group, uint32_t promised) const;
  void claim(uint32_t promised);
  /// What is claimed now, where that is nothing new.
  void settle() noexcept;
  /// Claims the most that may be given back from here to `least` tokens, so that nobody else gets it before settle().
  void claim_most(uint64_t least) noexcept;
  Reservation::Before grow_to(uint64_t n_tokens, uint64_t start, bool runs);
  /// Bytes of tables and ids: as they are, and with room for `target` tokens, or n_tokens in groups with a window and
  /// for ids.
  uint64_t room_bytes() const;
  uint64_t room_bytes_with(uint64_t target, uint64_t n_tokens) const;
  void make_room(uint64_t target, uint64_t n_tokens);
  /// The same where it has been charged; what could not be made is given back.
  void make_charged_room(uint64_t target, uint64_t n_tokens);
  void undo(const Reservation::Before& before) noexcept;
  uint32_t first_written(size_t group, uint64_t at) const;
  uint64_t first_kept(const KvGeometry& geometry) const;  // the first page that the history, or hold_from(), asks for
  void drop_passed();                                     // pages that windows have passed

  ContextMemory& memory_;
  mutable RankedMutex mutex_{LockRank::sequence};
  std::vector<int32_t> tokens_;
  std::vector<PageTable> tables_;        // by group
  States states_;                        // the last claim is theirs, where there are any
  std::vector<SequenceParams> globals_;  // by group: kernels get exactly these
  Admission::Pages claims_;              // as admission has them
  Admission::Pages next_claims_;         // room to work them out in
  uint64_t charged_bytes_ = 0;           // of page tables and ids, as the ledger has them
  uint32_t promised_ = 0, step_ = 0;
  static constexpr uint32_t kHoldsNothing = UINT32_MAX;
  uint32_t held_from_ = kHoldsNothing;
  uint64_t pages_added_ = 0;
};

}  // namespace foundry
