#include "engine/saved.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <span>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/hash.h"
#include "engine/model.h"
#include "formats/kv_rows.h"

namespace foundry {
namespace {

constexpr int kBits = 5;  // raised when a device's results change: K and V of before would not be what it computes now

std::string device_of(const CompiledModel& model) {
  const DeviceInfo& info = model.device_info();
  const std::string system = info.system.empty() ? "" : ", system " + info.system;
  return info.name + ":" + info.isa + system + ", bits " + std::to_string(kBits);
}

/// What lies behind the last token of a page is whatever the page held before: none of the file's business.
void clear_behind(std::byte* page, const KvGeometry& g, uint32_t n_tokens) {
  const KvParams kv = g.params();
  const std::vector<float> nothing(g.head_dim);
  for (uint32_t part = 0; part < g.n_layers * g.n_kv_heads; ++part) {
    std::byte* k = page + part * kv.head_stride_bytes;
    for (uint32_t t = n_tokens; t < g.page_tokens; ++t) {
      write_k(kv, k, t, nothing.data());
      write_v(kv, k + kv.k_part_bytes, t, nothing.data());
    }
  }
}

Room room_for_a_page(const std::vector<PageTable>& tables, const States& states) {
  uint64_t most = states.any() ? states.pool().geometry().page_bytes() : 0;
  for (const PageTable& table : tables) most = std::max(most, table.pool().geometry().page_bytes());
  return {tables.front().pool().memory(), most};
}

/// The states that a history holds, ascending.
std::vector<SavedState> held_by(const States& states) {
  std::vector<SavedState> held;
  for (const States::Kept& one : states.kept()) held.push_back({one.position, one.turn});
  const uint32_t running = states.running_position();
  if (running > (held.empty() ? 0 : held.back().position)) held.push_back({running, false});
  return held;
}

/// Calls use(group, bytes) with each page as a file has it, cleared behind the last token; then with each state.
template <class F>
void for_each_page(const std::vector<PageTable>& tables, const States& states, uint64_t n_tokens, const F& use) {
  const Room room = room_for_a_page(tables, states);
  for (size_t g = 0; g < tables.size(); ++g) {
    const PagePool& pool = tables[g].pool();
    const KvGeometry& geometry = pool.geometry();
    const uint64_t n = geometry.pages_for(n_tokens), whole = n_tokens / geometry.page_tokens;
    for (uint64_t p = tables[g].first(); p < n; ++p) {
      const Span from = pool.span(tables[g].pages()[p]);
      if (p < whole) {
        const std::span page(pool.memory().window(from, room.span()), geometry.page_bytes());
        pool.memory().download(from, page);
        use(g, page);
        continue;
      }
      std::vector<std::byte> tail(geometry.page_bytes());
      pool.memory().download(from, tail);
      clear_behind(tail.data(), geometry, static_cast<uint32_t>(n_tokens % geometry.page_tokens));
      use(g, tail);
    }
  }
  if (!states.any()) return;
  const PagePool& pool = states.pool();
  for (const SavedState& one : held_by(states)) {
    const Span from = pool.span(states.at(one.position));
    const std::span state(pool.memory().window(from, room.span()), pool.geometry().page_bytes());
    pool.memory().download(from, state);
    use(tables.size(), state);
  }
}

void read_whole(const InputFile& file, uint64_t at, std::span<std::byte> to, uint64_t checksum,
                const std::function<void(const std::string&)>& lost) {
  if (const uint64_t found = file.read(at, to); found != to.size())
    lost("cut short: expected " + std::to_string(to.size()) + " bytes at byte " + std::to_string(at) + ", found " +
         std::to_string(found));
  if (hash64(to) != checksum) lost("damaged: its checksum differs");
}

KvImage read_header(const InputFile& file, const CompiledModel& model) {
  KvImage::Expected expected;
  const auto pools = std::span(model.memory().pools()).first(model.memory().kv_groups());
  for (const auto& pool : pools) expected.groups.push_back(pool->geometry());
  if (const PagePool* states = model.memory().states()) expected.states = states->geometry();
  expected.max_tokens = model.arch().max_seq_len, expected.vocab_size = model.arch().vocab_size;
  std::vector<std::byte> header(kImagePrefix);
  header.resize(file.read(0, header));
  header.resize(KvImage::header_bytes(header, file.size(), expected, file.path()));
  if (const uint64_t found = file.read(0, header); found != header.size())
    throw ModelFormatError(file.path() + ": cut short while it was read: expected a header of " +
                           std::to_string(header.size()) + " bytes, found " + std::to_string(found));
  KvImage::check_sum(header, file.path());
  expected.fingerprint = model.fingerprint();  // last: the first time it reads the weights
  expected.device = device_of(model);
  return KvImage::parse(header, file.size(), expected, file.path());
}

}  // namespace

SavedHistory::SavedHistory(const std::string& path, const CompiledModel& model)
    : file(path), image(read_header(file, model)) {}

void SavedHistory::read(std::vector<PageTable>& tables, const States& states, uint64_t n_tokens) const {
  const Room room = room_for_a_page(tables, states);
  for (size_t g = 0; g < tables.size(); ++g) {
    const KvImage::Group& group = image.groups[g];
    const PagePool& pool = tables[g].pool();
    const KvGeometry& geometry = pool.geometry();
    const auto lost = [&](uint64_t p, const std::string& what) {
      const std::string first = std::to_string(p * geometry.page_tokens);
      throw ModelFormatError(file.path() + ": page " + std::to_string(p) + " is " + what + "; tokens from " + first +
                             " on are lost, rewind() to there goes on");
    };
    for (uint64_t p = group.first_page; p < geometry.pages_for(n_tokens); ++p) {
      const uint64_t at = group.begin + (p - group.first_page) * geometry.page_bytes();
      const Span to = pool.span(tables[g].pages()[p]);
      const std::span page(pool.memory().window(to, room.span()), geometry.page_bytes());
      read_whole(file, at, page, group.checksums[p - group.first_page],
                 [&](const std::string& what) { lost(p, what); });
      pool.memory().upload(to, page);
    }
  }
  for (size_t i = 0; i < image.states.at.size(); ++i) {
    const uint32_t position = image.states.at[i].position;
    const PageId id = states.at(position);
    if (id == kNoPage) continue;  // the history was cut before it
    const PagePool& pool = states.pool();
    const Span to = pool.span(id);
    const std::span state(pool.memory().window(to, room.span()), pool.geometry().page_bytes());
    read_whole(file, image.states.begin + i * state.size(), state, image.states.checksums[i],
               [&](const std::string& what) {
                 throw ModelFormatError(file.path() + ": the state at " + std::to_string(position) + " is " + what +
                                        "; rewind() to before it goes on");
               });
    pool.memory().upload(to, state);
  }
}

void write_history(const std::string& path, const CompiledModel& model, const std::vector<int32_t>& tokens,
                   const std::vector<PageTable>& tables, const States& states) {
  KvImage image;
  image.fingerprint = model.fingerprint();
  image.device = device_of(model);
  image.tokens = tokens;
  for (const PageTable& table : tables) image.groups.push_back({table.pool().geometry(), table.first(), {}, 0});
  // Twice over all pages, for the checksums stand before them: the file is as large as the history, and nothing here is.
  if (states.any()) image.states.geometry = states.pool().geometry(), image.states.at = held_by(states);
  for_each_page(tables, states, tokens.size(), [&](size_t group, std::span<const std::byte> page) {
    auto& checksums = group == tables.size() ? image.states.checksums : image.groups[group].checksums;
    checksums.push_back(hash64(page));
  });
  AtomicFile file(path);
  file.write(image.header());
  for_each_page(tables, states, tokens.size(), [&](size_t, std::span<const std::byte> page) { file.write(page); });
  file.commit();
}

}  // namespace foundry
