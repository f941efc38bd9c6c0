#include "device/metal/faults.h"

#include <cerrno>
#include <string>

#include "base/error.h"

namespace foundry {
namespace {

const char* text_of(NSError* error) {
  return error == nil || error.localizedDescription == nil ? "no description" : error.localizedDescription.UTF8String;
}

uint64_t unused_bytes(id<MTLDevice> device) {
  const uint64_t most = device.recommendedMaxWorkingSetSize, used = device.currentAllocatedSize;
  return used < most ? most - used : 0;
}

}  // namespace

void throw_fault(id<MTLCommandBuffer> commands, bool again) {
  NSError* error = commands.error;
  const std::string what = std::string("metal: a step failed on the GPU: ") + text_of(error);
  if (error != nil && error.code == MTLCommandBufferErrorOutOfMemory)
    throw MemoryLimitError(what, 0, unused_bytes(commands.device));
  if (again) throw IoError("", what + ", on a new command queue as on the one before: restart the process", EIO);
  throw ConsistencyError(what);
}

void throw_compile_error(const char* what, const char* name, NSError* error) {
  throw ConsistencyError(std::string("metal: ") + what + " " + name + ": " + text_of(error));
}

void throw_short_of_memory(id<MTLDevice> device, uint64_t bytes) {
  const uint64_t available = unused_bytes(device);
  throw MemoryLimitError("metal: needed " + std::to_string(bytes) + " bytes, available " + std::to_string(available) +
                             " of the GPU's working set",
                         bytes, available);
}

}  // namespace foundry
