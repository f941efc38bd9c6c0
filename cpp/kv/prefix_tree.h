// Pages of histories that have been computed, kept for sessions that begin with the same tokens: a radix tree whose
// edges are whole pages of tokens (SGLang's RadixAttention, arXiv:2312.07104, at the grain of pages). Least recently
// used leaves go first; pages that a live session holds stay, for their going would free nothing. Of a windowed group a
// node has a page only where a history still held it, so prefixes are found that end where some history did; of a
// recurrent group, the state at the page's end. Thread-safe.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "kv/states.h"

namespace foundry {

class PrefixTree {
 public:
  /// limit_bytes of pages at most; 0 keeps nothing.
  PrefixTree(const std::vector<std::unique_ptr<PagePool>>& pools, uint64_t limit_bytes);
  ~PrefixTree();
  PrefixTree(const PrefixTree&) = delete;

  /// Shares the pages of the longest known prefix of `tokens` into the tables, in place of what they hold there.
  /// Returns its tokens.
  uint32_t match(std::span<const int32_t> tokens, std::vector<PageTable>& tables, States& states);
  /// Keeps the whole pages of a history that are not known yet, and the states at their ends; or, without
  /// `with_states`, the pages.
  void insert(std::span<const int32_t> tokens, const std::vector<PageTable>& tables, const States& states,
              bool with_states = true);
  bool keeps() const { return limit_ != 0; }
  /// Lets go of the page used longest ago that no session holds. False if there is none.
  bool evict_one();
  uint64_t bytes() const;
  /// A page of the tree, in the order of a walk: a parent, then what goes on from it.
  struct Page {
    uint32_t depth = 0;  // pages before it
    uint32_t tokens = 0;
    uint64_t bytes = 0;
    uint64_t children = 0;
    bool shared = false;  // a session holds it too
  };
  std::vector<Page> pages() const;

 private:
  struct Node;
  using Children = std::map<std::vector<int32_t>, std::unique_ptr<Node>>;
  struct Node {
    std::vector<PageId> pages;  // by group; kNoPage where the window had passed
    uint64_t used = 0;
    Children children;
  };
  struct Oldest {
    Children* among = nullptr;
    Children::iterator at;
  };
  void find_oldest(Children& among, const Node* keep, Oldest& best) const;
  bool evict_locked(const Node* keep);
  void release(const Node& node);
  uint64_t node_bytes(const Node& node) const;
  bool shared(const Node& node) const;
  void list(const Children& among, uint32_t depth, std::vector<Page>& into) const;
  /// The longest beginning of a path whose last rows can be run again, and what they see.
  size_t usable(const std::vector<const Node*>& path) const;
  bool fits(uint64_t bytes, const Node* keep);
  void release_all(Children& children);

  const std::vector<std::unique_ptr<PagePool>>& pools_;
  uint64_t limit_;
  uint32_t page_tokens_;
  mutable RankedMutex mutex_{LockRank::prefixes};
  Children root_;
  uint64_t bytes_ = 0;
  uint64_t clock_ = 0;
};

}  // namespace foundry
