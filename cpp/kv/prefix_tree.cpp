#include "kv/prefix_tree.h"

#include <algorithm>

namespace foundry {

PrefixTree::PrefixTree(const std::vector<std::unique_ptr<PagePool>>& pools, uint64_t limit_bytes)
    : pools_(pools), limit_(limit_bytes), page_tokens_(pools.at(0)->geometry().page_tokens) {}

PrefixTree::~PrefixTree() { release_all(root_); }

void PrefixTree::release(const Node& node) {
  bytes_ -= node_bytes(node);
  for (size_t g = 0; g < node.pages.size(); ++g)
    if (node.pages[g] != kNoPage) pools_[g]->release(node.pages[g]);
}

uint64_t PrefixTree::node_bytes(const Node& node) const {
  uint64_t bytes = 0;
  for (size_t g = 0; g < node.pages.size(); ++g)
    if (node.pages[g] != kNoPage) bytes += pools_[g]->geometry().page_bytes();
  return bytes;
}

size_t PrefixTree::usable(const std::vector<const Node*>& path) const {
  for (size_t n = path.size(); n != 0; --n) {
    bool whole = true;
    for (size_t g = 0; g < pools_.size(); ++g)
      for (size_t i = pools_[g]->geometry().first_kept(n * page_tokens_); i < n; ++i)
        whole = whole && path[i]->pages[g] != kNoPage;
    if (whole) return n;
  }
  return 0;
}

bool PrefixTree::fits(uint64_t bytes, const Node* keep) {
  while (bytes_ + bytes > limit_)
    if (!evict_locked(keep)) return false;
  return true;
}

void PrefixTree::release_all(Children& children) {
  for (auto& [tokens, node] : children) {
    release_all(node->children);
    release(*node);
  }
  children.clear();
}

uint32_t PrefixTree::match(std::span<const int32_t> tokens, std::vector<PageTable>& tables, States& states) {
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
  const size_t n = usable(path);
  for (PageTable& table : tables) table.make_room(static_cast<uint32_t>(n));
  for (size_t g = 0; g < tables.size(); ++g) {  // nothing below allocates
    const uint64_t first = pools_[g]->geometry().first_kept(n * page_tokens_);
    tables[g].drop_before(static_cast<uint32_t>(first));
    for (size_t i = first; i < n; ++i) tables[g].put(static_cast<uint32_t>(i), path[i]->pages[g]);
  }
  if (states.any() && n != 0) states.adopt(static_cast<uint32_t>(n * page_tokens_), path[n - 1]->pages.back());
  return static_cast<uint32_t>(n * page_tokens_);
}

void PrefixTree::insert(std::span<const int32_t> tokens, const std::vector<PageTable>& tables, const States& states,
                        bool with_states) {
  if (limit_ == 0) return;
  const std::lock_guard lock(mutex_);
  Children* children = &root_;
  const Node* last = nullptr;
  for (uint32_t i = 0; (uint64_t{i} + 1) * page_tokens_ <= tokens.size(); ++i) {
    const auto page = tokens.subspan(uint64_t{i} * page_tokens_, page_tokens_);
    std::vector<int32_t> key(page.begin(), page.end());
    auto found = children->find(key);
    auto fresh = std::make_unique<Node>();
    Node& node = found == children->end() ? *fresh : *found->second;
    node.pages.resize(pools_.size(), kNoPage);
    const auto has = [&](size_t g) {
      if (g < tables.size()) return tables[g].pages().at(i);
      return with_states ? states.at((i + 1) * page_tokens_) : kNoPage;
    };
    uint64_t more = 0;  // what this history has and the node has not
    for (size_t g = 0; g < pools_.size(); ++g)
      if (node.pages[g] == kNoPage && has(g) != kNoPage) more += pools_[g]->geometry().page_bytes();
    if (!fits(more, found == children->end() ? last : &node)) return;
    if (found == children->end()) found = children->emplace(std::move(key), std::move(fresh)).first;
    for (size_t g = 0; g < pools_.size(); ++g) {
      if (node.pages[g] != kNoPage || has(g) == kNoPage) continue;
      pools_[g]->retain(has(g));
      node.pages[g] = has(g);
    }
    bytes_ += more;
    found->second->used = ++clock_;
    last = found->second.get();
    children = &found->second->children;
  }
}

bool PrefixTree::shared(const Node& node) const {
  for (size_t g = 0; g < node.pages.size(); ++g)
    if (node.pages[g] != kNoPage && pools_[g]->references(node.pages[g]) > 1) return true;
  return false;
}

void PrefixTree::find_oldest(Children& among, const Node* keep, Oldest& best) const {
  for (auto at = among.begin(); at != among.end(); ++at) {
    Node& node = *at->second;
    find_oldest(node.children, keep, best);
    const bool held = &node == keep || !node.children.empty() || shared(node);
    if (!held && (best.among == nullptr || node.used < best.at->second->used)) best = {&among, at};
  }
}

bool PrefixTree::evict_locked(const Node* keep) {
  Oldest oldest;
  find_oldest(root_, keep, oldest);
  if (oldest.among == nullptr) return false;
  release(*oldest.at->second);
  oldest.among->erase(oldest.at);
  return true;
}

bool PrefixTree::evict_one() {
  const std::lock_guard lock(mutex_);
  return evict_locked(nullptr);
}

void PrefixTree::list(const Children& among, uint32_t depth, std::vector<Page>& into) const {
  for (const auto& [tokens, node] : among) {
    into.push_back({depth, page_tokens_, node_bytes(*node), node->children.size(), shared(*node)});
    list(node->children, depth + 1, into);
  }
}

std::vector<PrefixTree::Page> PrefixTree::pages() const {
  std::vector<Page> found;
  const std::lock_guard lock(mutex_);
  list(root_, 0, found);
  return found;
}

uint64_t PrefixTree::bytes() const {
  const std::lock_guard lock(mutex_);
  return bytes_;
}

}  // namespace foundry
