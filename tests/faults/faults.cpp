#include "faults/faults.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstddef>
#include <new>

namespace foundry::faults {
namespace {

// Hashes of files have threads of their own, which fail too.
std::atomic<int64_t> countdown = -1, seen = 0;
std::atomic<bool> came = false;
std::atomic<How> mode = How::fail;

bool now() {
  ++seen;
  if (countdown < 0 || countdown-- != 0) return false;
  came = true;
  if (mode == How::kill) ::_exit(9);
  return true;
}

}  // namespace

void arm(int64_t nth, How how) { countdown = nth, mode = how, seen = 0, came = false; }
int64_t disarm() {
  countdown = -1;
  return seen;
}
bool fired() { return came; }

}  // namespace foundry::faults

using foundry::faults::How;
using foundry::faults::mode;
using foundry::faults::now;

extern "C" {
void* __real__Znwm(size_t);
void* __wrap__Znwm(size_t size) {
  if (now()) {
    if (mode == How::kill_mid) ::_exit(9);
    throw std::bad_alloc();
  }
  return __real__Znwm(size);
}
void* __real_mmap(void*, size_t, int, int, int, off_t);
void* __wrap_mmap(void* at, size_t size, int protection, int flags, int fd, off_t offset) {
  if (now()) {
    if (mode == How::kill_mid) ::_exit(9);
    errno = ENOMEM;
    return MAP_FAILED;
  }
  return __real_mmap(at, size, protection, flags, fd, offset);
}
ssize_t __real_write(int, const void*, size_t);
ssize_t __wrap_write(int fd, const void* data, size_t size) {
  if (now()) {
    if (mode == How::kill_mid) {
      if (__real_write(fd, data, size / 2) < 0) ::_exit(8);
      ::_exit(9);
    }
    errno = ENOSPC;
    return -1;
  }
  return __real_write(fd, data, size);
}
int __real_fsync(int);
int __wrap_fsync(int fd) {
  if (now()) {
    if (mode == How::kill_mid) ::_exit(9);
    errno = EIO;
    return -1;
  }
  return __real_fsync(fd);
}
int __real_rename(const char*, const char*);
int __wrap_rename(const char* from, const char* to) {
  if (now()) {
    if (mode == How::kill_mid) {
      __real_rename(from, to);
      ::_exit(9);
    }
    errno = EIO;
    return -1;
  }
  return __real_rename(from, to);
}
int __real_fchmod(int, mode_t);
int __wrap_fchmod(int fd, mode_t permissions) {
  if (now()) {
    if (mode == How::kill_mid) ::_exit(9);
    errno = EPERM;
    return -1;
  }
  return __real_fchmod(fd, permissions);
}
ssize_t __real_pread(int, void*, size_t, off_t);
ssize_t __wrap_pread(int fd, void* to, size_t size, off_t offset) {
  if (now()) {
    if (mode == How::kill_mid) ::_exit(9);
    errno = EIO;
    return -1;
  }
  return __real_pread(fd, to, size, offset);
}
int __real_flock(int, int);
int __wrap_flock(int fd, int how) {
  if (now()) {
    if (mode == How::kill_mid) {
      __real_flock(fd, how);
      ::_exit(9);
    }
    errno = ENOLCK;
    return -1;
  }
  return __real_flock(fd, how);
}
int __real_open(const char*, int, ...);
int __wrap_open(const char* path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  const unsigned permissions = (flags & O_CREAT) != 0 ? va_arg(rest, unsigned) : 0;
  va_end(rest);
  if (now()) {
    if (mode == How::kill_mid) {
      __real_open(path, flags, permissions);
      ::_exit(9);
    }
    errno = EMFILE;
    return -1;
  }
  return __real_open(path, flags, permissions);
}
}
