// Session: a token history, the pages that hold its K/V, and what kernels are told of them.
// Each call is atomic: it completes, or throws and leaves position, history and promise as they were.
#pragma once
#include <algorithm>
#include <atomic>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/sample.h"
#include "engine/model.h"
#include "engine/sampler.h"
#include "engine/saved.h"

namespace foundry {

/// What a session says of itself, each figure from its own place: python/foundry/consistency.py compares them.
struct Observed {
  struct Group {
    uint64_t window;
    uint64_t encoded_pages, table_pages_at;  // addresses of the table
    uint64_t encoded_max_seq_len, encoded_n_pages, encoded_first_page, encoded_page_tokens, encoded_page_bytes;
    uint64_t table_pages, table_first, table_held, table_addresses, table_nulls;  // nulls: addresses of no page
    std::vector<uint64_t> slab_lengths;
    uint64_t slab_bytes, used_pages;
  };
  std::vector<Group> groups;
  uint64_t encoded_rope_max_seq_len, ledger_kv_bytes, arch_max_seq_len, capacity, position;
};

enum class Finish : uint32_t { none, stop, length, context };

class Session {
 public:
  Session(std::shared_ptr<CompiledModel> model, const Capacity& capacity);
  /// A session of its own with this history and promise, on the same pages: no K/V byte is copied. The first write to a shared
  /// page, by whoever makes it, copies that page.
  std::shared_ptr<Session> fork();
  ~Session();
  Session(const Session&) = delete;

  CompiledModel& model() { return *model_; }
  uint32_t position() const;
  /// Tokens that the pages cover; windowed groups, which take the same pages again, count where there are no others.
  uint32_t capacity() const;
  /// The least position, apart from 0, that rewind() can go back to: windows have passed what earlier ones would see.
  uint32_t rewindable_to() const;
  uint32_t reserved_tokens() const;
  uint64_t kv_bytes() const;     // of the pages held
  uint64_t pages_added() const;  // since the session began, its initial pages left out
  bool closed() const;
  std::vector<int32_t> tokens() const;
  std::vector<SequenceParams> globals() const;  // by group, as kernels are given them
  Observed observe() const;

  /// Promises room for n_tokens in all.
  void reserve(uint32_t n_tokens);
  /// Writes history and pages to a file, whole or not at all. IoError leaves the old file.
  void save(const std::string& path);
  /// Back to the first n_tokens; whole pages behind them are returned. ValueError between 0 and rewindable_to().
  void rewind(uint32_t n_tokens);
  /// While a generation runs, windows keep what rows from this position on see, so that rewind() can go back to it; at most the
  /// pages that are promised for a step. The next call but next() and rewind() lets them go.
  void hold(uint32_t position);
  /// From any thread: the call that runs (or the generation under way) ends with CancelledError; later calls are not touched.
  void cancel() { ++cancels_; }
  void close();

  /// Feeds tokens; ends a generation under way. See CompiledModel::forward.
  void forward(std::span<const int32_t> tokens, LogitsOf which, const LogitsSink& sink, const Progress& progress);

  // Generation: begin() prefills, next() gives a token at a time until `finish` is set. The last token given is not in the
  // history until the next begin() feeds it, before its prompt; rewind, forward and score drop it.
  struct Next {
    int32_t token = -1;
    Finish finish = Finish::none;
  };
  /// Returns the generation's number, which next() takes: ValueError once another call has ended that generation.
  uint64_t begin(std::span<const int32_t> prompt, uint32_t max_new_tokens, const Sampling& sampling,
                 std::vector<int32_t> stop_ids, const Progress& progress);
  Next next(uint64_t generation, const Progress& progress);
  /// Of the last begin(): tokens whose K/V was found in the model's prefix cache, and not computed.
  uint32_t cached_tokens() const;

  /// log p(tokens[i] | history, tokens[:i]); NaN for the very first token of a history.
  std::vector<float> score(std::span<const int32_t> tokens, const Progress& progress);

  /// Tests only: changes one figure at its own place, to be seen by the consistency asserts.
  void bend(const std::string& place, size_t group, int64_t by);

 private:
  friend class CompiledModel;
  // Under mutex_, called by CompiledModel::forward.
  void require_open() const;
  void quiesce();                 // open, no step of it is under way any more, and nothing is held
  void stop_steps();              // open, and no step of it is under way any more
  void require_idle() const;      // the lock lets a callback of the running step in: it may look, and change nothing
  struct Held {                   // what a failed step puts back
    std::vector<uint32_t> pages;  // by group
    Admission::Pages claims;
    uint64_t pages_added;
  };
  Held held() const;
  /// Makes the positions from the current one to n_tokens writable: pages for them, none of them shared.
  void grow_to(uint64_t n_tokens);
  /// Room in the tables for so many tokens; where they lie is told to kernels anew.
  void make_room(uint64_t target, uint64_t n_tokens);
  /// The next rows of a call are first .. end: windowed groups take pages there that earlier rows of it no longer see.
  void roll_to(uint64_t first, uint64_t end);
  /// The call has completed: these tokens are history, and pages that windows have passed go.
  void commit(std::span<const int32_t> tokens);
  uint64_t first_kept(
      const KvGeometry& geometry) const;  // index of the first page that the history, or hold(), asks for
  void let_go();                          // ends hold()
  /// The history that a failed call goes back to: what it holds is not taken for other rows.
  uint64_t to_keep() const { return std::max<uint64_t>(tokens_.size(), scored_from_); }
  uint32_t first_written(size_t group) const;  // index of the page that the next token goes to
  /// Pages that a promise of `reserved` tokens may still take: those not held, and a copy of the next one written if it is shared.
  uint64_t claim_of(size_t group, uint32_t reserved) const;
  /// Tells admission what is claimed now, and may be refused; settle() after changes that claim nothing new.
  void claim(uint32_t reserved);
  void settle() noexcept;
  void restore(const Held& held) noexcept;
  void encode_globals();
  uint32_t take_cached(std::span<const int32_t> rows);
  void drop_cached();
  void read_saved();  // the pages of a restored history, once
  void end_generation() { pending_ = -1, ++generation_; }
  int32_t next_token(const Progress& progress);
  // Generation on a device that runs beside the host: steps are under way before the token that the last of them needs is known here.
  /// One more, where the device, the generation's end and memory let it. What is short shows when no step is under way.
  bool start_ahead();
  int32_t next_ahead(const Progress& progress);  // the token of the first, whose own is history then
  void drop_ahead() noexcept;                    // all of them: their tokens were never told
  uint32_t capacity_now() const;
  uint32_t rewindable_now() const;

  struct Forked {};
  Session(Forked, const Session& parent);
  /// As saved; the pages are there, their bytes come with read_saved().
  void take_saved(std::shared_ptr<const SavedHistory> saved, uint32_t reserved);

  std::shared_ptr<CompiledModel> model_;
  mutable std::recursive_mutex mutex_;
  std::vector<PageTable> tables_;        // by group
  std::vector<SequenceParams> globals_;  // by group: kernels get exactly these
  uint32_t rope_max_seq_len_ = 0;        // encoded beside globals_
  Admission::Pages claims_;              // as admission has them
  Admission::Pages next_claims_;         // room to work them out in
  std::shared_ptr<const SavedHistory> unread_;
  std::vector<int32_t> tokens_;  // the history: position == tokens_.size()
  uint32_t scored_from_ = 0;     // while score() runs the last row again: the history with it
  uint32_t reserved_ = 0;
  uint32_t step_ = 0;
  uint64_t pages_added_ = 0;
  static constexpr uint32_t kHoldsNothing = UINT32_MAX;
  uint32_t held_from_ = kHoldsNothing;
  std::atomic<uint64_t> cancels_{0};  // so far: a call looks whether there are more than when it was made
  uint64_t generation_cancels_ = 0;   // when the generation began
  bool closed_ = false;
  bool stepping_ = false;

  std::vector<std::pair<float, int32_t>> candidates_;  // room for sample()
  Sampling sampling_;
  std::vector<int32_t> stop_ids_;
  std::vector<float> logits_;  // of the last row, while a generation runs
  uint32_t left_ = 0;
  uint32_t cached_tokens_ = 0;
  int32_t pending_ = -1;                  // sampled, not yet fed
  std::vector<StepRunner::Ahead> ahead_;  // in order; the first is fed pending_
  Finish finished_ = Finish::stop;
  uint64_t generation_ = 0;  // counts them
};

}  // namespace foundry
