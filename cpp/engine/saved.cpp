#include "engine/saved.h"

#include <algorithm>
#include <cstring>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/hash.h"
#include "engine/model.h"
#include "formats/kv_rows.h"

namespace foundry {
namespace {

constexpr int kBits = 1;  // raised when a device's results change: K and V of before would not be what it computes now

std::string device_of(const CompiledModel& model) {
  const DeviceInfo& info = model.device_info();
  return info.name + ":" + info.isa + ", bits " + std::to_string(kBits);
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

KvImage read_header(const InputFile& file, const CompiledModel& model) {
  KvImage::Expected expected;
  for (const auto& pool : model.memory().pools()) expected.groups.push_back(pool->geometry());
  expected.max_tokens = model.arch().max_seq_len, expected.vocab_size = model.arch().vocab_size;
  std::vector<std::byte> header(kImagePrefix);
  header.resize(file.read(0, header));
  header.resize(KvImage::header_bytes(header, file.size(), expected.max_tokens, expected.groups, file.path()));
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

void SavedHistory::read(std::vector<PageTable>& tables, uint64_t n_tokens) const {
  for (size_t g = 0; g < tables.size(); ++g) {
    const KvImage::Group& group = image.groups[g];
    const KvGeometry& geometry = tables[g].pool().geometry();
    const auto lost = [&](uint64_t p, const std::string& what) {
      const std::string first = std::to_string(p * geometry.page_tokens);
      throw ModelFormatError(file.path() + ": page " + std::to_string(p) + " is " + what + "; tokens from " + first +
                             " on are lost, rewind() to there goes on");
    };
    for (uint64_t p = group.first_page; p < geometry.pages_for(n_tokens); ++p) {
      const uint64_t at = group.begin + (p - group.first_page) * geometry.page_bytes();
      const std::span page(tables[g].pool().data(tables[g].pages()[p]), geometry.page_bytes());
      if (const uint64_t found = file.read(at, page); found != page.size())
        lost(p, "cut short: expected " + std::to_string(page.size()) + " bytes at byte " + std::to_string(at) +
                    ", found " + std::to_string(found));
      if (hash64(page) != group.checksums[p - group.first_page]) lost(p, "damaged: its checksum differs");
    }
  }
}

void write_history(const std::string& path, const CompiledModel& model, const std::vector<int32_t>& tokens,
                   const std::vector<PageTable>& tables) {
  KvImage image;
  image.fingerprint = model.fingerprint();
  image.device = device_of(model);
  image.tokens = tokens;
  std::vector<std::vector<std::span<const std::byte>>> pages(tables.size());
  std::vector<std::vector<std::byte>> tails(tables.size());  // the last pages, cleared behind the last token
  for (size_t g = 0; g < tables.size(); ++g) {
    KvImage::Group& group = image.groups.emplace_back();
    group.geometry = tables[g].pool().geometry();
    group.first_page = tables[g].first();
    const uint64_t n = group.geometry.pages_for(tokens.size()), page_bytes = group.geometry.page_bytes();
    for (uint64_t p = group.first_page; p < n; ++p)
      pages[g].emplace_back(tables[g].pool().data(tables[g].pages()[p]), page_bytes);
    if (const auto behind = static_cast<uint32_t>(tokens.size() % group.geometry.page_tokens); behind != 0) {
      tails[g].assign(pages[g].back().begin(), pages[g].back().end());
      clear_behind(tails[g].data(), group.geometry, behind);
      pages[g].back() = tails[g];
    }
    for (const auto page : pages[g]) group.checksums.push_back(hash64(page));
  }
  AtomicFile file(path);
  file.write(image.header());
  for (const auto& group : pages)
    for (const auto page : group) file.write(page);
  file.commit();
}

}  // namespace foundry
