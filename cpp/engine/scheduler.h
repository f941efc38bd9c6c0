// The one place that steps. Calls queue requests; a step has rows of all who decode, then chunks of prompts in fair turns.
// There is no thread of its own: whoever waits leads the next step, for everybody, and hooks are called on their caller's thread while it
// does not lead. So nobody waits for another's callback, and for another's prefill no longer than one chunk.
#pragma once
#include <array>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <list>

#include "base/forks.h"
#include "base/lock_order.h"
#include "engine/ahead.h"
#include "engine/request.h"
#include "engine/step.h"
#include "engine/step_plan.h"

namespace foundry {

class Scheduler {
 public:
  /// Steps that there were, and their rows.
  struct Counts {
    uint64_t steps = 0, rows = 0;
    uint64_t decode_steps = 0, decode_rows = 0;  // steps with rows that were a request of their own, and those rows
  };

  Scheduler(StepRunner& runner, const ForkGuarded& forks)
      : runner_(runner), forks_(forks), chunk_(runner.max_rows()), ahead_(runner) {}
  Scheduler(const Scheduler&) = delete;

  /// Runs the request's rows, in steps shared with others. What ends it early, or what it failed of, is thrown; no step has rows of it
  /// then, and nothing is committed. Otherwise its reservations are there to be committed.
  void run(Request& request, const Hooks& hooks);
  /// Calls with no step under way, and none beginning meanwhile: the device is the caller's.
  template <class F>
  auto alone(const Poll& poll, F&& call) {
    const Lead lead(*this, poll);
    return call();
  }
  /// Steps ahead of the host with rows of this generation, and of others that run ahead, until it has as many as the device may; then
  /// calls, with no other step beginning.
  template <class F>
  auto ahead(AheadMember& member, const Poll& poll, F&& call) {
    const Waiting waiting(*this, member);
    const Lead lead(*this, poll);
    start_ahead(member);
    return call();
  }
  /// No step gets a row of it any more. With its session's call lock held.
  void leave(AheadMember& member) noexcept;
  /// ValueError inside a hook of this scheduler's: a callback can't step.
  void refuse_callback() const;
  Counts counts() const;

 private:
  using Clock = std::chrono::steady_clock;
  struct Lead {
    Lead(Scheduler& of, const Poll& poll);
    ~Lead();
    Scheduler& of;
  };
  /// While it lives, whoever leads may add rows for a member that waits.
  struct Waiting {
    Waiting(Scheduler& of, AheadMember& member);
    ~Waiting();
    Waiting(const Waiting&) = delete;
    Scheduler& of;
    AheadMember& member;
  };
  void start_ahead(AheadMember& member);
  using Line = std::list<const void*>;  // entries move between lists without allocating
  struct Part {
    Request* request;
    uint32_t rows;
    std::exception_ptr error{};
  };
  struct Origin {  // of a row of the step
    size_t part, item, row;
  };

  bool may_lead(const void* who) const { return !leading_ && !line_.empty() && line_.front() == who; }
  void wait(RankedLock& lock);
  void stand_in_line(Line& ticket) { line_.splice(line_.end(), ticket); }
  void leave_line(Line& ticket);
  /// Hooks are called without the lock, and out of the line: others lead meanwhile. Returns what they threw.
  std::exception_ptr call_out(RankedLock& lock, Line& ticket, const std::function<void()>& hook);
  /// One step, by who leads. `poll` is the leader's; what it throws is returned, and ends the step at once where the step is its own.
  std::exception_ptr step(Request* own, const Poll& poll);
  std::vector<Part> compose();
  /// Somebody decodes beside the prompts that wait, or did a moment ago.
  bool shared(Clock::time_point now) const;
  /// Pages for all of its rows, before its first ones run.
  void begin(Request& request);
  void run_parts(std::vector<Part>& parts, const Poll& poll);
  void tell_rows(std::vector<Part>& parts, std::span<const int32_t> rows, std::span<const Origin> origins, Gives gives,
                 const Poll& poll);
  void remember(const Sequence* decoder);
  void finish_parts(const std::vector<Part>& parts, double seconds);

  StepRunner& runner_;
  const ForkGuarded& forks_;
  mutable RankedMutex mutex_{LockRank::scheduler};
  std::condition_variable changed_;
  std::list<Request*> queue_;  // in the order of their turns
  Line line_;                  // who waits to lead
  bool leading_ = false;
  ChunkSize chunk_;
  Counts counts_;
  AheadSteps ahead_;                   // of who leads
  std::vector<AheadMember*> members_;  // that run ahead
  uint32_t last_decodes_ = 0;          // decode rows of the last step
  Clock::time_point last_end_{};
  Clock::duration last_took_{};
  struct Decoder {
    const Sequence* who = nullptr;
    Clock::time_point when{};
  };
  std::array<Decoder, 64> decoders_{};  // the latest
};

}  // namespace foundry
