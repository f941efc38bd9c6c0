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

std::string layout(const KvGeometry& g) {
  return std::to_string(g.n_layers) + " layers, " + std::to_string(g.n_kv_heads) + " KV heads of " +
         std::to_string(g.head_dim) + ", window " + std::to_string(g.window) + ", pages of " +
         std::to_string(g.page_tokens) + " in tiles of " + std::to_string(g.tile_tokens) + ", K in type " +
         std::to_string(static_cast<uint32_t>(g.k_type)) + ", V in type " +
         std::to_string(static_cast<uint32_t>(g.v_type));
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

}  // namespace

SavedHistory::SavedHistory(const std::string& name, const CompiledModel& model)
    : path(name), file(name), image(KvImage::parse({file.data(), file.size()}, name)) {
  const auto fail = [&](const std::string& what) { throw ModelFormatError(path + ": " + what); };
  if (image.fingerprint != model.fingerprint()) fail("saved with another model");
  if (image.device != device_of(model))
    fail("device: expected " + device_of(model) + ", found " + image.device + ": its bits would not be this device's");
  if (image.groups.size() != model.pools().size())
    fail("layer groups: expected " + std::to_string(model.pools().size()) + ", found " +
         std::to_string(image.groups.size()));
  if (image.tokens.size() > model.arch().max_seq_len)
    fail("tokens: expected at most " + std::to_string(model.arch().max_seq_len) + ", found " +
         std::to_string(image.tokens.size()));
  for (const int32_t token : image.tokens)
    if (token < 0 || static_cast<uint32_t>(token) >= model.arch().vocab_size)
      fail("a token outside the vocabulary: " + std::to_string(token));
  for (size_t g = 0; g < image.groups.size(); ++g) {
    const KvGeometry& expected = model.pools()[g]->geometry();
    if (layout(image.groups[g].geometry) != layout(expected))
      fail("layout: expected " + layout(expected) + ", found " + layout(image.groups[g].geometry));
    const uint64_t first = image.groups[g].first_page, pages = expected.pages_for(image.tokens.size());
    if (first > pages || expected.rewindable_to(first) > image.tokens.size() || (first != 0 && expected.window == 0))
      fail("first page: expected one that the last row's window does not pass, found " + std::to_string(first));
    if (image.groups[g].pages.size() != pages - first)
      fail("pages: expected " + std::to_string(pages - first) + ", found " +
           std::to_string(image.groups[g].pages.size()));
  }
}

void SavedHistory::read(std::vector<PageTable>& tables, uint64_t n_tokens) const {
  for (size_t g = 0; g < tables.size(); ++g) {
    const KvGeometry& geometry = tables[g].pool().geometry();
    const uint32_t first = image.groups[g].first_page;
    for (uint64_t p = first; p < geometry.pages_for(n_tokens); ++p) {
      const std::span page(image.groups[g].pages[p - first], geometry.page_bytes());
      if (hash64(page) != image.groups[g].checksums[p - first])
        throw ModelFormatError(path + ": page " + std::to_string(p) +
                               " is damaged: its checksum differs; tokens from " +
                               std::to_string(p * geometry.page_tokens) + " on are lost, rewind() to there goes on");
      std::memcpy(tables[g].pool().data(tables[g].pages()[p]), page.data(), page.size());
    }
  }
}

void write_history(const std::string& path, const CompiledModel& model, const std::vector<int32_t>& tokens,
                   const std::vector<PageTable>& tables) {
  KvImage image;
  image.fingerprint = model.fingerprint();
  image.device = device_of(model);
  image.tokens = tokens;
  std::vector<std::vector<std::byte>> tails(tables.size());  // the last pages, cleared behind the last token
  for (size_t g = 0; g < tables.size(); ++g) {
    KvImage::Group& group = image.groups.emplace_back();
    group.geometry = tables[g].pool().geometry();
    group.first_page = tables[g].first();
    const uint64_t n = group.geometry.pages_for(tokens.size());
    for (uint64_t p = group.first_page; p < n; ++p) group.pages.push_back(tables[g].pool().data(tables[g].pages()[p]));
    if (const auto behind = static_cast<uint32_t>(tokens.size() % group.geometry.page_tokens); behind != 0) {
      tails[g].assign(group.pages.back(), group.pages.back() + group.geometry.page_bytes());
      clear_behind(tails[g].data(), group.geometry, behind);
      group.pages.back() = tails[g].data();
    }
    for (const std::byte* page : group.pages) group.checksums.push_back(hash64({page, group.geometry.page_bytes()}));
  }
  AtomicFile file(path);
  file.write(image.header());
  for (const KvImage::Group& group : image.groups)
    for (const std::byte* page : group.pages) file.write({page, group.geometry.page_bytes()});
  file.commit();
}

}  // namespace foundry
