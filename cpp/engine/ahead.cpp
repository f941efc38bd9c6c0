#include "engine/ahead.h"

#include <algorithm>

#include "base/error.h"

namespace foundry {

/// Those who want a row, in the order of the newest rows that they have, so that a step can follow the newest one.
std::vector<AheadSteps::Row> AheadSteps::wanted(AheadMember& first, std::span<AheadMember* const> others) const {
  std::vector<Row> rows;
  rows.reserve(1 + others.size());
  rows.push_back({&first});
  for (AheadMember* other : others)
    if (rows.size() < runner_.most_ahead_rows()) rows.push_back({other});
  const auto place = [](const Row& r) {
    return r.member->under_way_.empty() ? UINT32_MAX : r.member->under_way_.back().row;
  };
  std::vector<std::pair<uint32_t, AheadMember*>> places;
  for (const Row& row : rows) places.emplace_back(place(row), row.member);
  std::stable_sort(places.begin(), places.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  for (size_t i = 0; i < rows.size(); ++i) rows[i].member = places[i].second;
  for (Row& row : rows) {
    try {
      if (auto want = row.member->want()) row.want.emplace(std::move(*want));
    } catch (const Error&) {
      if (row.member == &first && first.under_way_.empty()) throw;
    }
    if (row.member == &first && !row.want) return {};
  }
  std::vector<Row> found;
  for (Row& row : rows)
    if (row.want) found.push_back(std::move(row));
  return found;
}

/// Each row's token is the one that the newest step draws in the same row.
bool AheadSteps::follows(const std::vector<Row>& rows) const {
  const auto newest = newest_.lock();
  if (newest == nullptr || newest_rows_ != rows.size()) return false;
  for (uint32_t i = 0; i < rows.size(); ++i) {
    const auto& under_way = rows[i].member->under_way_;
    if (under_way.empty() || under_way.back().step != newest || under_way.back().row != i) return false;
  }
  return true;
}

size_t AheadSteps::start(AheadMember& first, std::span<AheadMember* const> others) {
  std::vector<Row> rows = wanted(first, others);
  const auto newest = follows(rows) ? newest_.lock() : nullptr;
  std::vector<int32_t> tokens;
  if (newest == nullptr) {  // others than in the newest step: its tokens are waited for, and go in from here
    std::vector<Row> known;
    for (Row& row : rows) {
      int32_t token = row.want->pending;
      try {
        if (!row.member->under_way_.empty())
          token = row.member->under_way_.back().step->token(row.member->under_way_.back().row);
      } catch (const Error&) {  // its owner will be told
        token = -1;
      }
      if (token < 0) continue;
      tokens.push_back(token);
      known.push_back(std::move(row));
    }
    rows = std::move(known);
  } else {
    tokens.assign(rows.size(), 0);  // not read
  }
  if (rows.empty()) return 0;
  std::vector<RowRun> runs;
  std::vector<SampleParams> params;
  const auto step = std::make_shared<AheadStep>(runner_);
  std::list<AheadRow> made;
  for (size_t i = 0; i < rows.size(); ++i) {
    const AheadMember::Want& want = *rows[i].want;
    runs.push_back({want.reservation.globals(), {&tokens[i], 1}, want.position});
    params.push_back(want.params);
  }
  for (uint32_t i = 0; i < rows.size(); ++i) made.push_back({step, i, std::move(rows[i].want->reservation)});
  step->handle = runner_.start(runs, params, newest == nullptr ? nullptr : &*newest->handle);
  if (!step->handle) return 0;
  for (const Row& row : rows)  // nothing here fails: pages of rows under way stay held
    row.member->under_way_.splice(row.member->under_way_.end(), made, made.begin());
  newest_ = step, newest_rows_ = rows.size();
  return rows.size();
}

}  // namespace foundry
