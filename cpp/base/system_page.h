// The unit in which the system maps and gives back memory.
#pragma once
#include <unistd.h>

#include <cstdint>

namespace foundry {

/// In bytes, a power of two.
inline uint64_t system_page() { return static_cast<uint64_t>(::sysconf(_SC_PAGESIZE)); }

}  // namespace foundry
