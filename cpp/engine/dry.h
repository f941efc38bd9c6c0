// DRY, "don't repeat yourself": a token that would go on with a repetition is made less likely, the more the longer the repetition is
// (p-e-w, https://github.com/oobabooga/text-generation-webui/pull/5677). What limits it is as in llama.cpp's sampler "dry"
// (src/llama-sampler.cpp), whose values these are.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

namespace foundry {

/// Sequences of tokens that no repetition reaches across.
class SequenceBreakers {
 public:
  /// Each is a first token and those behind it. ValueError for an empty one.
  explicit SequenceBreakers(const std::vector<std::vector<int32_t>>& sequences);

  /// Tokens of the longest one that stands at `at`; 0 where none does.
  size_t length_at(std::span<const int32_t> tokens, size_t at) const;
  /// The token is one on its own.
  bool alone(int32_t token) const;

 private:
  std::unordered_map<int32_t, std::vector<std::vector<int32_t>>> rests_;  // by the first token
};

struct DrySampling {
  float multiplier = 0;  // of the penalty; 0: off
  float base = 1.75f;    // raised to the repetition's length less the allowed one
  uint32_t allowed_length = 2;
  int32_t penalty_last_n = 64;                            // tokens that are looked at; 0: off, -1: all
  std::shared_ptr<const SequenceBreakers> breakers = {};  // none: nothing limits a repetition

  bool on() const { return multiplier != 0 && penalty_last_n != 0; }
};

class Dry {
 public:
  /// `history`: the tokens before the answer.
  Dry(const DrySampling& sampling, std::span<const int32_t> history);

  /// The next token of the answer. Throws nothing behind an apply().
  void answered(int32_t token);
  /// Takes penalties from the logits of the tokens that would go on with a repetition.
  void apply(std::span<float> logits);

 private:
  size_t limit_of(std::span<const int32_t> last) const;
  float penalty_of(uint32_t length) const;

  DrySampling sampling_;
  std::vector<int32_t> tokens_;                    // that may still be looked at
  std::vector<uint32_t> again_;                    // of one apply()
  std::unordered_map<int32_t, uint32_t> longest_;  // likewise: by token, the repetition that it would go on with
};

}  // namespace foundry
