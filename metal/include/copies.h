// Copies from device to threadgroup memory that run beside what a thread does next. Where a GPU has none (METAL_COPIES
// is not defined) they are done at once.
#pragma once
#ifndef METAL_COPIES

/// 16 bytes; zeros where they are not `there`, and then nothing is read.
METAL_FUNC void copy_begin(threadgroup uint4* to, device const uint4* from, bool there) {
  *to = there ? *from : uint4(0, 0, 0, 0);
}
/// Until this thread's copies have ended. Others' are seen behind a barrier.
METAL_FUNC void copies_wait() {}

#endif
