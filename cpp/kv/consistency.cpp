#include "kv/consistency.h"

#include <algorithm>
#include <numeric>
#include <string>

#include "base/error.h"

namespace foundry {
namespace {

void equal(const std::string& a, uint64_t x, const std::string& b, uint64_t y) {
  if (x != y) throw ConsistencyError(a + " is " + std::to_string(x) + ", " + b + " is " + std::to_string(y));
}

void at_most(const std::string& a, uint64_t x, const std::string& b, uint64_t y) {
  if (x > y) throw ConsistencyError(a + " is " + std::to_string(x) + ", at most " + b + " is " + std::to_string(y));
}

uint64_t sum(const std::vector<uint64_t>& lengths) {
  return std::accumulate(lengths.begin(), lengths.end(), uint64_t{0});
}

void check_group(const std::string& of, const Sequence::Observed& all, const Sequence::Observed::Group& g) {
  equal(of + "encoded.pages", g.encoded_pages, of + "table.pages_at", g.table_pages_at);
  equal(of + "encoded.n_pages", g.encoded_n_pages, of + "table.pages", g.table_pages);
  equal(of + "encoded.first_page", g.encoded_first_page, of + "table.first", g.table_first);
  equal(of + "table.addresses", g.table_addresses, of + "table.pages", g.table_pages);
  equal(of + "table.pages - table.held", g.table_pages - g.table_held, of + "table.nulls", g.table_nulls);
  at_most(of + "table.first", g.table_first, of + "table.nulls", g.table_nulls);
  equal(of + "encoded.max_seq_len", g.encoded_max_seq_len, of + "pages * page_tokens, at most the model's",
        std::min(g.encoded_n_pages * g.encoded_page_tokens, all.max_seq_len));
  at_most(of + "position", all.position, of + "encoded.max_seq_len", g.encoded_max_seq_len);
  at_most(of + "table.held", g.table_held, of + "pool.used_pages", g.used_pages);
  equal(of + "pool.slab_bytes", g.slab_bytes, of + "whole pages",
        g.slab_bytes / g.encoded_page_bytes * g.encoded_page_bytes);
  for (const uint64_t length : g.slab_lengths)
    equal(of + "length of a slab's buffer", length, of + "pool.slab_bytes", g.slab_bytes);
  at_most(of + "pool.used_pages * encoded.page_bytes", g.used_pages * g.encoded_page_bytes,
          of + "sum of pool.slab_lengths", sum(g.slab_lengths));
}

}  // namespace

void check_consistent(const Sequence::Observed& o) {
  uint64_t held = 0;
  bool any_full = false;
  for (size_t g = 0; g < o.groups.size(); ++g) {
    check_group("group " + std::to_string(g) + " ", o, o.groups[g]);
    held += sum(o.groups[g].slab_lengths);
    any_full = any_full || o.groups[g].window == 0;
  }
  const Sequence::Observed::Recurrent& states = o.recurrent;
  at_most("running state's position", states.running_position, "position", o.position);
  at_most("states.held", states.held, "states.used_pages", states.used_pages);
  for (size_t i = 0; i < states.kept.size(); ++i) {
    equal("kept state's position", states.kept[i], "whole pages",
          states.kept[i] / states.page_tokens * states.page_tokens);
    at_most("kept state's position", states.kept[i], "the next one's, or position",
            i + 1 < states.kept.size() ? states.kept[i + 1] - 1 : o.position);
  }
  for (const uint64_t length : states.slab_lengths)
    equal("length of a slab of states", length, "states.slab_bytes", states.slab_bytes);
  held += sum(states.slab_lengths);
  equal("ledger.kv_bytes", o.ledger_kv_bytes, "sum of pool.slab_lengths", held);
  uint64_t least = UINT64_MAX;
  for (const auto& group : o.groups)
    if (group.window == 0 || !any_full) least = std::min(least, group.encoded_max_seq_len);
  equal("capacity", o.capacity, "the least encoded.max_seq_len", least);
}

}  // namespace foundry
