// Families of Apple's GPUs on which all of docs/first_mac.md was seen right: there "auto" is Metal.
#pragma once
#include <set>

namespace foundry {

/// 7 for Apple7, the family of M1. Tests add to it.
inline std::set<int>& trusted_families() {
  static std::set<int> families{
      // a family a line, with the machine, its system and the day
  };
  return families;
}

}  // namespace foundry
