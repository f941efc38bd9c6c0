// Memory of host devices: anonymous pages from the system, given back whole when the buffer goes.
#pragma once
#include <memory>

#include "device/memory.h"

namespace foundry {

/// What one entry of a processor's page table can span, where the system has such pages (Linux on x86-64 and Arm).
inline constexpr uint64_t kHugePageBytes = uint64_t{2} << 20;

/// Zero until written, resident only where touched. Page-aligned; from kHugePageBytes on aligned to that, and in huge
/// pages as far as whole ones fit, where the system gives them: with pages of 4 KiB a stream of weights or of K and V
/// waits for address translation half of its time. Throws MemoryLimitError when the system refuses.
std::unique_ptr<Buffer> make_host_buffer(uint64_t bytes, MemoryKind kind);

}  // namespace foundry
