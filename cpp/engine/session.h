// Session: a sequence of a model, and the calls on it, one at a time. Each is atomic: it completes, or throws and leaves position,
// history and promise as they were.
#pragma once
#include <atomic>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/fair_lock.h"
#include "engine/generation.h"
#include "engine/model.h"
#include "engine/saved.h"
#include "kv/sequence.h"

namespace foundry {

class Session;

/// Of a batch: these tokens behind the session's position.
struct BatchItem {
  Session* session = nullptr;
  std::span<const int32_t> tokens;
};

class Session {
 public:
  static std::shared_ptr<Session> open(std::shared_ptr<CompiledModel> model, const Capacity& capacity);
  /// The session of a saved file, promised its tokens and `more`. The file stays open until the step that first needs pages has read
  /// them. ModelFormatError: another model, device or layout, a damaged file.
  static std::shared_ptr<Session> restore(std::shared_ptr<CompiledModel> model, const std::string& path, uint32_t more,
                                          uint32_t step);
  /// A session of its own with the committed history and promise, on the same pages: no K/V byte is copied, and a step of this one that
  /// runs is not waited for.
  std::shared_ptr<Session> fork(const Poll& poll = {});
  ~Session();
  Session(const Session&) = delete;

  CompiledModel& model() { return *model_; }

  // Figures: they never wait, and say what has been committed; of memory, what is held now.
  Sequence::Figures figures() const;
  uint32_t position() const { return figures().position; }
  /// Of the last prompt: tokens found in the model's prefix tree, and not computed.
  uint32_t cached_tokens() const { return cached_tokens_; }
  /// Of the last call that ran rows: those that ran again before them, from the nearest state on that its recurrent
  /// layers held.
  uint32_t replayed_tokens() const { return replayed_tokens_; }
  /// How many those will be, where the history is cut to `position` and goes on.
  uint32_t replay(uint32_t position) const;
  bool closed() const { return closed_; }
  uint64_t shared_bytes() const;
  std::vector<int32_t> tokens() const;
  std::vector<SequenceParams> globals() const;  // by group, as kernels are given them
  Sequence::Observed observe() const;
  /// The consistency asserts (kv/consistency.h), now.
  void check() const;

  // These wait for the call that runs; the poll may end that.
  /// Promises room for n_tokens in all.
  void reserve(uint32_t n_tokens, const Poll& poll = {});
  /// Writes history and pages to a file, whole or not at all. IoError leaves the old file.
  void save(const std::string& path, const Poll& poll = {});
  /// Back to the first n_tokens; whole pages behind them are returned. ValueError between 0 and rewindable_to.
  void rewind(uint32_t n_tokens, const Poll& poll = {});
  /// While a generation runs, windows keep what rows from this position on see: see Sequence::hold_from. The next call but next() and
  /// rewind() lets it go.
  void hold(uint32_t position, const Poll& poll = {});
  void close(const Poll& poll = {});

  /// From any thread: the call that runs (or the generation under way) ends with CancelledError; later calls are not touched.
  void cancel() { ++cancels_; }

  /// Rows of several sessions of a model, ragged. All items or none: positions commit together at the end. Generations under way in
  /// these sessions end.
  static void forward(CompiledModel& model, std::span<const BatchItem> items, LogitsOf which, const LogitsSink& sink,
                      const Hooks& hooks, Undrawable undrawable = Undrawable::refuse, Gives gives = Gives::logits);
  /// The same for this one alone.
  void forward(std::span<const int32_t> tokens, LogitsOf which, const LogitsSink& sink, const Hooks& hooks,
               Undrawable undrawable = Undrawable::refuse);
  /// log p(tokens[i] | history, tokens[:i]); NaN for the very first token of a history.
  std::vector<float> score(std::span<const int32_t> tokens, const Hooks& hooks);
  /// The same, with the `top` most likely tokens in the place of each, the likeliest first; none for the very first.
  struct Scored {
    std::vector<float> logprobs;
    std::vector<std::vector<std::pair<int32_t, float>>> top;
  };
  Scored score(std::span<const int32_t> tokens, uint32_t top, const Hooks& hooks);
  /// Feeds the prompt, behind the last token of the generation before; the generation then gives tokens. Or behind the first `keep` tokens
  /// of the history, where there are more: the others give way to the prompt, and come back if it fails. As for rewind(), `keep` is 0 or
  /// at least rewindable_to.
  std::shared_ptr<Generation> generate(std::span<const int32_t> prompt, Generation::Options options, const Hooks& hooks,
                                       uint32_t keep = UINT32_MAX);

 private:
  friend class Generation;
  friend struct SequenceTester;
  Session(std::shared_ptr<CompiledModel> model, std::unique_ptr<Sequence> sequence);
  static std::shared_ptr<Session> shared(Session* session);

  // With calls_ held.
  std::shared_ptr<Generation> begin_generation(std::span<const int32_t> prompt, Generation::Options options,
                                               const Hooks& heard, uint64_t cancels);
  void require_idle() const;  // the lock lets a callback of the call that runs in: it may look, and change nothing
  void require_open() const;
  void stop_steps();  // open, and no step of it is under way any more
  void quiesce();     // the same, and nothing is held for a stop string
  void read_saved();  // the pages of a restored history, once
  void end_generation();
  /// The hooks of a call, which also hear a cancel since `cancels` and a fork of the process.
  Hooks heard(const Hooks& hooks, uint64_t cancels) const;
  void validate(std::span<const int32_t> tokens, uint32_t back = 0) const;
  /// `rows` holds the tokens that run, where those are more: recurrent layers may need rows before them run again.
  Request::Item item_of(std::span<const int32_t> tokens, std::vector<int32_t>& rows, uint32_t back = 0);
  void commit(Request::Item& item);
  static void run(Request& request, const std::vector<Session*>& sessions, const Hooks& heard);
  /// Runs one request over these tokens and commits; nothing is pending then.
  void advance(std::span<const int32_t> tokens, const Hooks& heard, const LogitsSink& sink,
               LogitsOf which = LogitsOf::last, uint32_t back = 0, bool keeps_cancelled = false);
  /// Of a request that was cancelled, the prefix tree keeps the rows that have run; the history is empty then.
  void keep_cancelled(Request& request);

  std::shared_ptr<CompiledModel> model_;
  FairLock calls_{LockRank::calls};  // one at a time
  std::unique_ptr<Sequence> sequence_;
  std::shared_ptr<const SavedHistory> unread_;
  std::atomic<bool> has_unread_{false};
  RankedMutex commit_mutex_{LockRank::history};  // history and pending token change together, for forks
  int32_t pending_ = -1;                         // drawn, given to the caller, not yet fed
  std::shared_ptr<Generation> generation_;
  std::atomic<uint32_t> cached_tokens_{0}, replayed_tokens_{0};
  std::atomic<uint64_t> cancels_{0};  // so far: a call looks whether there are more than when it was made
  std::atomic<bool> closed_{false};
  bool in_call_ = false;  // a request of it is with the scheduler
  /// While it lives a call waits or runs there: callbacks may look at the session, and change nothing.
  struct Stepping {
    explicit Stepping(Session& session) : of(session) { of.in_call_ = true; }
    ~Stepping() { of.in_call_ = false; }
    Stepping(const Stepping&) = delete;
    Session& of;
  };
};

}  // namespace foundry
