// What tests of recurrent layers share: sequences whose rows are cut into runs, and their states in a device's memory.
#pragma once
#include <algorithm>
#include <string>
#include <vector>

#include "kernels/support.h"

namespace foundry::kernel_tests {

struct StateSequence {
  uint32_t rows;
  std::vector<float> before;  // its state; none: nothing has come before
};

/// A case's sequences, with random states of `width` values before those that do not start at 0.
inline std::vector<StateSequence> state_sequences(const cases::Case& one, Random& random, uint64_t width) {
  std::vector<StateSequence> sequences;
  for (const cases::SequenceCase& s : one.sequences())
    sequences.push_back({s.rows, s.start == 0 ? std::vector<float>{} : random_floats(random, width)});
  return sequences;
}

/// Results of a recurrent op: its rows, and the state behind each sequence.
struct RecurrentResults {
  std::vector<float> rows;
  std::vector<std::vector<float>> states;
};

/// Each sequence's state in a device's memory, behind another layer's, which must stay as it is; and its rows, one
/// sequence behind the other, in runs of at most `cut`.
class InStates {
 public:
  InStates(Device& device, const std::vector<StateSequence>& sequences, uint64_t width, uint32_t cut) {
    uint32_t row = 0;
    for (const StateSequence& s : sequences) {
      std::vector<float> kept = another_;
      kept.insert(kept.end(), s.before.begin(), s.before.end());
      kept.resize(another_.size() + width, NAN);
      states_.emplace_back(device, kept);
    }
    for (size_t i = 0; i < sequences.size(); ++i) {
      const uint64_t at = states_[i].address();
      for (uint32_t done = 0, n; done < sequences[i].rows; done += n, row += n) {
        n = std::min(cut, sequences[i].rows - done);
        runs_.push_back({done == 0 && sequences[i].before.empty() ? 0 : at, at, row, n});
      }
    }
  }
  uint64_t at_bytes() const { return another_.size() * sizeof(float); }
  const StateRun* runs() const { return runs_.data(); }
  u32 n_runs() const { return static_cast<u32>(runs_.size()); }
  std::vector<std::vector<float>> results(const std::string& who) const {
    std::vector<std::vector<float>> found;
    for (const Guarded& state : states_) {
      const std::vector<float> kept = state.result(who);
      CHECK(rows_of(kept, another_.size(), 0, 1) == another_);
      found.emplace_back(kept.begin() + static_cast<int64_t>(another_.size()), kept.end());
    }
    return found;
  }

 private:
  std::vector<float> another_ = std::vector<float>(5, 7.0f);
  std::vector<Guarded> states_;
  std::vector<StateRun> runs_;
};

/// The same bits however rows are cut, on any threads, and of the last sequence without the others. `of` has sequences,
/// n_rows() and without_others(), and `run(device, of, cut, who)` gives its results, rows of `width` values.
template <class Case, class Run>
void check_cuts(const std::string& name, const Case& of, uint64_t width, const Run& run, const std::string& who) {
  TestDevice device(name, 2), alone(name, 1);
  const RecurrentResults whole = run(device, of, UINT32_MAX, who);
  for (const uint32_t cut : {1u, 2u, 5u, 9u}) {
    const RecurrentResults parts = run(alone, of, cut, who);
    CHECK_MESSAGE(compare_bits(parts.rows, whole.rows) == "", name, ", ", who, " in runs of ", cut);
    for (size_t i = 0; i < parts.states.size(); ++i)
      CHECK_MESSAGE(compare_bits(parts.states[i], whole.states[i]) == "", name, ", ", who, " in runs of ", cut);
  }
  const uint32_t last = of.sequences.back().rows;
  CHECK_MESSAGE(compare_bits(run(device, of.without_others(), UINT32_MAX, who).rows,
                             rows_of(whole.rows, width, of.n_rows() - last, last)) == "",
                name, ", ", who, " alone");
}

}  // namespace foundry::kernel_tests
