#include "base/atomic_file.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <climits>
#include <cstdio>
#include <string_view>

#include "base/error.h"
#include "base/hash.h"

namespace foundry {
namespace {

constexpr size_t kMostAtOnce = size_t{1} << 30;  // some systems refuse more in one call
constexpr int kMostLinks = 40;                   // as many as systems follow
constexpr int kMostNames = 100;                  // other saves take one or two
constexpr std::string_view kPart = ".foundry-part-";
constexpr size_t kDigits = 16;

std::string folder_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "./" : path.substr(0, slash + 1);
}

/// Where the path's chain of symbolic links ends, whether something is there or not. Empty, and errno set, where that
/// can't be told.
std::string end_of_links(std::string path) {
  for (int i = 0; i < kMostLinks; ++i) {
    struct stat info{};
    if (::lstat(path.c_str(), &info) != 0 || !S_ISLNK(info.st_mode)) return path;
    char to[PATH_MAX];
    const ssize_t n = ::readlink(path.c_str(), to, sizeof to);
    if (n < 0) return {};
    const std::string_view next(to, static_cast<size_t>(n));
    path = next.starts_with('/') ? std::string(next) : folder_of(path).append(next);
  }
  errno = ELOOP;
  return {};
}

bool lock(int fd, int how) {
  int result;
  do result = ::flock(fd, how | LOCK_NB);
  while (result != 0 && errno == EINTR);
  return result == 0;
}

/// A name that no other writer takes: O_EXCL sees to the rest.
std::string part_name() {
  static std::atomic<uint64_t> count{0};
  const uint64_t of[3] = {static_cast<uint64_t>(::getpid()), count.fetch_add(1),
                          static_cast<uint64_t>(std::chrono::system_clock::now().time_since_epoch().count())};
  char digits[kDigits + 1];
  std::snprintf(digits, sizeof digits, "%016llx",
                static_cast<unsigned long long>(hash64(std::as_bytes(std::span(of)))));
  return std::string(kPart) + digits;
}

bool is_part_name(std::string_view name) {
  return name.size() == kPart.size() + kDigits && name.starts_with(kPart) &&
         name.find_first_not_of("0123456789abcdef", kPart.size()) == std::string_view::npos;
}

/// Removes a part whose writer is gone. A live writer has an exclusive lock on it, or sees that the file has lost its
/// name when it gets the lock (open_part), and takes another.
void remove_if_left(const std::string& path) {
  struct stat info{};
  if (::lstat(path.c_str(), &info) != 0 || !S_ISREG(info.st_mode)) return;
  const int fd = ::open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) return;
  if (lock(fd, LOCK_SH)) ::unlink(path.c_str());
  ::close(fd);
}

void remove_what_is_left(const std::string& folder) {
  DIR* directory = ::opendir(folder.c_str());
  if (directory == nullptr) return;
  try {
    while (const dirent* entry = ::readdir(directory))
      if (is_part_name(entry->d_name)) remove_if_left(folder + entry->d_name);
  } catch (...) {
    ::closedir(directory);
    throw;
  }
  ::closedir(directory);
}

/// To the medium itself: on macOS fsync stops at the drive's own cache.
int flush(int fd) {
#ifdef F_FULLFSYNC
  if (::fcntl(fd, F_FULLFSYNC) == 0) return 0;
#endif
  return ::fsync(fd);
}

}  // namespace

AtomicFile::AtomicFile(std::string path) : path_(std::move(path)) {
  struct stat info{};
  if (::stat(path_.c_str(), &info) == 0) {
    if (S_ISDIR(info.st_mode)) throw IoError(path_, "expected a file's name, found a folder", EISDIR);
    if (!S_ISREG(info.st_mode))
      throw IoError(path_, "expected a regular file or a new name, found a FIFO, socket or device", EINVAL);
    replaces_ = true;
    mode_ = info.st_mode & 0777, owner_ = info.st_uid, group_ = info.st_gid;
  } else if (errno != ENOENT) {
    fail("cannot be written");
  }
  target_ = end_of_links(path_);
  if (target_.empty()) fail("cannot be written");
  folder_ = folder_of(target_);
  remove_what_is_left(folder_);
  open_part();
}

AtomicFile::~AtomicFile() {
  if (fd_ < 0) return;
  ::unlink(part_.c_str());  // before the lock goes
  ::close(fd_);
}

void AtomicFile::fail(const char* what) const { throw system_refusal(path_, what, errno); }

void AtomicFile::open_part() {
  for (int i = 0; i < kMostNames; ++i) {
    part_ = folder_ + part_name();
    // An old file's contents may be private: nobody else reads the new ones before they have its mode.
    fd_ = ::open(part_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, replaces_ ? 0600 : 0666);
    if (fd_ < 0 && (errno == EEXIST || errno == EINTR)) continue;
    if (fd_ < 0) fail("cannot be written");
    struct stat info{};
    const bool locked = lock(fd_, LOCK_EX);
    const bool taken = !locked && errno == EWOULDBLOCK;  // another save takes it for one that was left, and removes it
    if (!taken && (!locked || (::fstat(fd_, &info) == 0 && info.st_nlink != 0))) return;
    ::close(fd_);
    fd_ = -1;
  }
  errno = EAGAIN;
  fail("cannot be written: somebody else takes every part of it");
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
  if (replaces_) {
    struct stat part{};
    if (::fstat(fd_, &part) != 0) fail("cannot be examined");
    // Another's file stays his where the system lets us give files away; else it is ours from now on.
    const bool anothers = part.st_uid != owner_ || part.st_gid != group_;
    [[maybe_unused]] const bool given = anothers && ::fchown(fd_, owner_, group_) == 0;
    if (::fchmod(fd_, static_cast<mode_t>(mode_)) != 0) fail("cannot be given the old file's mode");
  }
  if (flush(fd_) != 0) fail("cannot be flushed");
  if (::rename(part_.c_str(), target_.c_str()) != 0) fail("cannot be put in place");
  ::close(fd_);
  fd_ = -1;
  // The rename itself is on the disk once the folder is; a folder that can't be opened for it loses only that.
  const int directory = ::open(folder_.c_str(), O_RDONLY | O_CLOEXEC);
  if (directory < 0) return;
  flush(directory);
  ::close(directory);
}

}  // namespace foundry
