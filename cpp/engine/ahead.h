// Steps ahead of the host, on a device that runs beside it: a token goes in, the next one is drawn where it was computed and goes into
// the step behind, before anybody here knows it. Generations that decode at the same time share these steps.
// Everything here is called by who leads the scheduler.
#pragma once
#include <list>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/fair_lock.h"
#include "engine/step.h"
#include "kv/sequence.h"

namespace foundry {

/// A step under way. It ends, well or not, before this does.
class AheadStep {
 public:
  explicit AheadStep(StepRunner& runner) : runner_(runner) {}
  ~AheadStep() {
    if (handle) runner_.drop(*handle);
  }
  AheadStep(const AheadStep&) = delete;
  /// The token drawn in this row, once the step has completed; -1 where none could be. What the device reports is thrown.
  int32_t token(uint32_t row) const { return runner_.drawn(*handle, row); }
  void wait_out() const noexcept { runner_.wait_out(*handle); }

  std::optional<StepRunner::Ahead> handle;  // once it has started

 private:
  StepRunner& runner_;
};

/// One generation's row of a step under way.
struct AheadRow {
  std::shared_ptr<AheadStep> step;
  uint32_t row;
  Reservation reservation;
};

/// A generation that runs ahead.
class AheadMember {
 public:
  virtual ~AheadMember() = default;
  /// The next row, its place in the history reserved.
  struct Want {
    Reservation reservation;
    SampleParams params;
    uint32_t position;
    int32_t pending;  // the token that goes in where no row of it is under way
  };
  /// Nothing where the generation wants no more rows now. Throws where there is no room for one.
  virtual std::optional<Want> want() = 0;

 protected:
  std::list<AheadRow> under_way_;  // in order; the first is fed the pending token

 private:
  friend class AheadSteps;
  friend class Scheduler;
  virtual FairLock& calls() = 0;  // of its session
  // The scheduler's, under its lock.
  bool joined_ = false;
  bool waits_ = false;  // its own call waits to lead: whoever leads may add rows for it
  bool held_ = false;   // and does so now
};

class AheadSteps {
 public:
  explicit AheadSteps(StepRunner& runner) : runner_(runner) {}
  /// One step, with a row of `first` and of those others that want one. Returns its rows; 0: `first` wants none, or all places are
  /// taken. A shortage of `first` is thrown where it has no row under way; others' only leave them out.
  size_t start(AheadMember& first, std::span<AheadMember* const> others);

 private:
  struct Row {
    AheadMember* member;
    std::optional<AheadMember::Want> want{};
  };
  std::vector<Row> wanted(AheadMember& first, std::span<AheadMember* const> others) const;
  bool follows(const std::vector<Row>& rows) const;

  StepRunner& runner_;
  std::weak_ptr<AheadStep> newest_;
  size_t newest_rows_ = 0;
};

}  // namespace foundry
