// The C library's heap, of which this core and Python make their small objects.
#pragma once

namespace foundry {

/// Gives memory that was freed back to the system, from the middle of the heaps too. glibc keeps a heap for many
/// threads each, and lets go of one's end alone: after a crowd has come and gone, their free pieces are still resident
/// (malloc_trim(3)). Elsewhere the library decides by itself. Whether anything was given back.
bool return_free_memory();

}  // namespace foundry
