#include "base/atomic_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <system_error>

#include "base/error.h"

namespace foundry {
namespace {
constexpr size_t kMostAtOnce = size_t{1} << 30;  // some systems refuse more in one call
}

AtomicFile::AtomicFile(std::string path) : path_(std::move(path)), part_(path_ + ".XXXXXX") {
  fd_ = ::mkstemp(part_.data());
  if (fd_ < 0) fail("cannot be written");
  ::fcntl(fd_, F_SETFD, FD_CLOEXEC);
}

AtomicFile::~AtomicFile() {
  if (fd_ < 0) return;
  ::close(fd_);
  ::unlink(part_.c_str());
}

void AtomicFile::fail(const char* what) const {
  const int code = errno;
  throw IoError(path_ + ": " + what + ": " + std::system_category().message(code), code);
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd_, bytes.data(), std::min(bytes.size(), kMostAtOnce));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail("cannot be written");
    bytes = bytes.subspan(static_cast<size_t>(n));
  }
}

void AtomicFile::commit() {
  if (::fsync(fd_) != 0) fail("cannot be flushed");
  if (::rename(part_.c_str(), path_.c_str()) != 0) fail("cannot be put in place");
  ::close(fd_);
  fd_ = -1;
  // The rename itself is on the disk once the folder is; a folder that can't be opened for it loses only that.
  const size_t slash = path_.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : path_.substr(0, slash + 1);
  const int directory = ::open(folder.c_str(), O_RDONLY | O_CLOEXEC);
  if (directory < 0) return;
  ::fsync(directory);
  ::close(directory);
}

}  // namespace foundry
