// Memory of host devices: anonymous pages from the system, given back whole when the buffer goes.
#pragma once
#include <memory>

#include "device/memory.h"

namespace foundry {

/// Page-aligned, zero until written, resident only where touched. Throws MemoryLimitError when the system refuses.
std::unique_ptr<Buffer> make_host_buffer(uint64_t bytes, MemoryKind kind);

}  // namespace foundry
