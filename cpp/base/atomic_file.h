// A file that appears whole or not at all: written beside its place under a name of its own, flushed to the disk, then
// renamed.
//
// A writer that is killed leaves its part behind. So each writer holds a lock (flock) on its part, which the system
// drops with the process, and each begins by removing the parts in its folder that nobody holds. What has another name,
// or is no regular file, is never touched. Where a file system has no locks, parts stay. A process that is forked
// during a save shares its lock.
#pragma once
#include <cstddef>
#include <span>
#include <string>

namespace foundry {

class AtomicFile {
 public:
  /// A symbolic link is followed: what it points to is replaced. IoError where there is something that is no regular
  /// file (EISDIR, EINVAL), or where the folder can't be written to.
  explicit AtomicFile(std::string path);
  /// Without commit(): what was written is taken away, the old file stays.
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;

  void write(std::span<const std::byte> bytes);
  /// From here on the path has the new contents, also after a loss of power. An old file's mode is kept, and its owner
  /// where the system allows it; a new one has what the process gives new files (umask).
  void commit();

 private:
  [[noreturn]] void fail(const char* what) const;
  void open_part();
  std::string path_;  // as the caller wrote it: errors name it
  std::string target_, folder_, part_;
  bool replaces_ = false;
  unsigned mode_ = 0, owner_ = 0, group_ = 0;  // of the file that is replaced
  int fd_ = -1;
};

}  // namespace foundry
