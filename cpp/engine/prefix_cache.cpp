#include "engine/prefix_cache.h"

#include <algorithm>

namespace foundry {

PrefixCache::PrefixCache(const std::vector<std::unique_ptr<PagePool>>& pools, uint64_t limit_bytes)
    : pools_(pools), limit_(limit_bytes), page_tokens_(pools.at(0)->geometry().page_tokens) {
  for (const auto& pool : pools) bytes_a_node_ += pool->geometry().page_bytes();
}

PrefixCache::~PrefixCache() { release_all(root_); }

void PrefixCache::release(const Node& node) {
  for (size_t g = 0; g < node.pages.size(); ++g) pools_[g]->release(node.pages[g]);
  --n_nodes_;
}

void PrefixCache::release_all(Children& children) {
  for (auto& [tokens, node] : children) {
    release_all(node->children);
    release(*node);
  }
  children.clear();
}

uint32_t PrefixCache::match(std::span<const int32_t> tokens, std::vector<PageTable>& tables) {
  if (limit_ == 0) return 0;
  const std::lock_guard lock(mutex_);
  std::vector<const Node*> path;
  Children* children = &root_;
  std::vector<int32_t> key(page_tokens_);
  while ((path.size() + 1) * page_tokens_ <= tokens.size()) {
    const auto page = tokens.subspan(path.size() * page_tokens_, page_tokens_);
    std::copy(page.begin(), page.end(), key.begin());
    const auto found = children->find(key);
    if (found == children->end()) break;
    found->second->used = ++clock_;
    path.push_back(found->second.get());
    children = &found->second->children;
  }
  for (PageTable& table : tables) table.make_room(static_cast<uint32_t>(path.size()));
  for (size_t i = 0; i < path.size(); ++i)  // nothing below allocates
    for (size_t g = 0; g < tables.size(); ++g) tables[g].put(static_cast<uint32_t>(i), path[i]->pages[g]);
  return static_cast<uint32_t>(path.size() * page_tokens_);
}

void PrefixCache::insert(std::span<const int32_t> tokens, const std::vector<PageTable>& tables) {
  if (limit_ == 0) return;
  const std::lock_guard lock(mutex_);
  Children* children = &root_;
  const Node* last = nullptr;
  for (uint32_t i = 0; (uint64_t{i} + 1) * page_tokens_ <= tokens.size(); ++i) {
    const auto page = tokens.subspan(uint64_t{i} * page_tokens_, page_tokens_);
    std::vector<int32_t> key(page.begin(), page.end());
    auto found = children->find(key);
    if (found == children->end()) {
      while ((n_nodes_ + 1) * bytes_a_node_ > limit_)
        if (!evict_locked(last)) return;
      auto node = std::make_unique<Node>();
      for (const PageTable& table : tables) node->pages.push_back(table.pages().at(i));
      found = children->emplace(std::move(key), std::move(node)).first;
      for (size_t g = 0; g < tables.size(); ++g) pools_[g]->retain(found->second->pages[g]);
      ++n_nodes_;
    }
    found->second->used = ++clock_;
    last = found->second.get();
    children = &found->second->children;
  }
}

void PrefixCache::find_oldest(Children& among, const Node* keep, Oldest& best) const {
  for (auto at = among.begin(); at != among.end(); ++at) {
    Node& node = *at->second;
    find_oldest(node.children, keep, best);
    bool held = &node == keep || !node.children.empty();
    for (size_t g = 0; g < node.pages.size(); ++g) held = held || pools_[g]->references(node.pages[g]) > 1;
    if (!held && (best.among == nullptr || node.used < best.at->second->used)) best = {&among, at};
  }
}

bool PrefixCache::evict_locked(const Node* keep) {
  Oldest oldest;
  find_oldest(root_, keep, oldest);
  if (oldest.among == nullptr) return false;
  release(*oldest.at->second);
  oldest.among->erase(oldest.at);
  return true;
}

bool PrefixCache::evict_one() {
  const std::lock_guard lock(mutex_);
  return evict_locked(nullptr);
}

uint64_t PrefixCache::bytes() const {
  const std::lock_guard lock(mutex_);
  return n_nodes_ * bytes_a_node_;
}

}  // namespace foundry
