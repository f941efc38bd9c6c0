#include "base/input_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/error.h"

namespace foundry {
namespace {

constexpr size_t kMostAtOnce = size_t{1} << 30;  // some systems refuse more in one call

FileIdentity identity_of(const struct stat& info) {
#ifdef __APPLE__
  const timespec &modified = info.st_mtimespec, &changed = info.st_ctimespec;
#else
  const timespec &modified = info.st_mtim, &changed = info.st_ctim;
#endif
  const auto ns = [](const timespec& t) { return int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec; };
  return {static_cast<uint64_t>(info.st_dev), static_cast<uint64_t>(info.st_ino), static_cast<uint64_t>(info.st_size),
          ns(modified), ns(changed)};
}

struct stat examined(int fd, const std::string& path) {
  struct stat info{};
  if (::fstat(fd, &info) != 0) throw system_refusal(path, "cannot be examined", errno);
  return info;
}

}  // namespace

InputFile::InputFile(const std::string& path) : path_(path) {
  // O_NONBLOCK: opening a FIFO must not wait for its writer; it is refused just below.
  fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd_ < 0) throw system_refusal(path, "cannot be opened", errno);
  try {
    const struct stat info = examined(fd_, path);
    if (!S_ISREG(info.st_mode)) throw ModelFormatError(path + ": expected a regular file, found a folder or a device");
    if (info.st_size <= 0) throw ModelFormatError(path + ": expected a file with contents, found an empty one");
    opened_ = identity_of(info);
  } catch (...) {
    ::close(fd_);
    throw;
  }
}

InputFile::~InputFile() {
  if (fd_ >= 0) ::close(fd_);
}

InputFile::InputFile(InputFile&& other) noexcept
    : path_(std::move(other.path_)),
      fd_(std::exchange(other.fd_, -1)),
      opened_(std::exchange(other.opened_, FileIdentity{})) {}

InputFile& InputFile::operator=(InputFile&& other) noexcept {
  // The other object takes what was ours, and closes it at its end.
  std::swap(path_, other.path_);
  std::swap(fd_, other.fd_);
  std::swap(opened_, other.opened_);
  return *this;
}

FileIdentity InputFile::identity_now() const { return identity_of(examined(fd_, path_)); }

uint64_t InputFile::read(uint64_t offset, std::span<std::byte> to) const {
  uint64_t done = 0;
  while (done < to.size()) {
    const size_t n = std::min<uint64_t>(to.size() - done, kMostAtOnce);
    const ssize_t got = ::pread(fd_, to.data() + done, n, static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw system_refusal(path_, "cannot be read", errno);
    if (got == 0) break;
    done += static_cast<uint64_t>(got);
  }
  return done;
}

}  // namespace foundry
