// What Metal reports, as Foundry's errors.
#pragma once
#import <Metal/Metal.h>

#include <cstdint>

namespace foundry {

/// Of a command buffer that ended in an error: MemoryLimitError where the GPU ran out of memory, IoError where a new
/// queue fails as the one before did (`again`), for then only a new process can help, else ConsistencyError.
[[noreturn]] void throw_fault(id<MTLCommandBuffer> commands, bool again);
/// Of a library or a pipeline: our kernels, so ConsistencyError.
[[noreturn]] void throw_compile_error(const char* what, const char* name, NSError* error);
[[noreturn]] void throw_short_of_memory(id<MTLDevice> device, uint64_t bytes);

}  // namespace foundry
