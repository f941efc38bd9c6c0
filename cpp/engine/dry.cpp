#include "engine/dry.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace foundry {

SequenceBreakers::SequenceBreakers(const std::vector<std::vector<int32_t>>& sequences) {
  for (const auto& sequence : sequences) {
    if (sequence.empty()) throw ValueError("sequence breakers: expected tokens, found none");
    rests_[sequence.front()].emplace_back(sequence.begin() + 1, sequence.end());
  }
}

size_t SequenceBreakers::length_at(std::span<const int32_t> tokens, size_t at) const {
  const auto found = rests_.find(tokens[at]);
  if (found == rests_.end()) return 0;
  const auto behind = tokens.subspan(at + 1);
  size_t longest = 0;
  for (const auto& rest : found->second)
    if (rest.size() <= behind.size() && std::equal(rest.begin(), rest.end(), behind.begin()))
      longest = std::max(longest, rest.size() + 1);
  return longest;
}

bool SequenceBreakers::alone(int32_t token) const {
  const auto found = rests_.find(token);
  return found != rests_.end() &&
         std::any_of(found->second.begin(), found->second.end(), [](const auto& rest) { return rest.empty(); });
}

Dry::Dry(const DrySampling& sampling, std::span<const int32_t> history) : sampling_(sampling) {
  if (!sampling.on()) return;
  if (sampling.penalty_last_n > 0)
    history = history.last(std::min<size_t>(history.size(), static_cast<size_t>(sampling.penalty_last_n)));
  tokens_.assign(history.begin(), history.end());
}

void Dry::answered(int32_t token) {
  if (sampling_.on()) tokens_.push_back(token);
}

/// A repetition is told from the tokens behind the last breaker alone.
size_t Dry::limit_of(std::span<const int32_t> last) const {
  if (sampling_.breakers == nullptr) return last.size();
  for (size_t i = 0; i < last.size(); ++i)
    if (const size_t length = sampling_.breakers->length_at(last, last.size() - 1 - i); length != 0)
      return i + 1 - length;
  return last.size();
}

float Dry::penalty_of(uint32_t length) const {
  uint32_t exponent = length - sampling_.allowed_length;
  if (sampling_.base > 1.000001f)  // as far as f32 reaches: the logarithm of its largest number
    exponent = std::min(exponent, static_cast<uint32_t>(88.7228391f / std::log(sampling_.base)));
  return static_cast<float>(sampling_.multiplier * std::pow(static_cast<double>(sampling_.base), exponent));
}

void Dry::apply(std::span<float> logits) {
  if (!sampling_.on()) return;
  if (tokens_.size() == tokens_.capacity()) tokens_.reserve(2 * tokens_.size() + 64);  // for answered()
  std::span<const int32_t> last = tokens_;
  if (sampling_.penalty_last_n > 0)
    last = last.last(std::min<size_t>(last.size(), static_cast<size_t>(sampling_.penalty_last_n)));
  const size_t n = last.size();
  if (n <= sampling_.allowed_length) return;
  const size_t limit = limit_of(last);
  if (limit < sampling_.allowed_length) return;

  // again_[k]: so many of the last tokens stand k tokens before as well (the Z function of the tokens read backwards: Gusfield,
  // "Algorithms on Strings, Trees and Sequences", 1997, section 1.4). It is linear in n.
  const auto from_end = [&](size_t i) { return last[n - 1 - i]; };
  again_.assign(n, 0);
  longest_.clear();
  for (size_t k = 1, begin = 0, end = 0; k < n; ++k) {
    size_t length = k < end ? std::min<size_t>(end - k, again_[k - begin]) : 0;
    while (k + length < n && from_end(length) == from_end(k + length)) ++length;
    if (k + length > end) begin = k, end = k + length;
    again_[k] = static_cast<uint32_t>(length);
    const auto told = static_cast<uint32_t>(std::min(length, limit));
    if (told < sampling_.allowed_length) continue;
    uint32_t& longest = longest_[last[n - k]];  // the token behind that repetition
    longest = std::max(longest, told);
  }
  for (const auto& [token, length] : longest_)
    if (sampling_.breakers == nullptr || !sampling_.breakers->alone(token))
      logits[static_cast<size_t>(token)] -= penalty_of(length);
}

}  // namespace foundry
