#include "device/cpu/processor.h"

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace foundry::cpu {

#ifdef __x86_64__
bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}

bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vnni");
}
#else
bool has_avx2() { return false; }
bool has_avx512() { return false; }
#endif

#if defined(__x86_64__) && defined(__linux__)
namespace {

constexpr long kAskPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM (Linux, asm/prctl.h)
constexpr unsigned long kTileData = 18;  // the tiles' part of a thread's state (Intel 64 SDM, volume 1, chapter 13)
constexpr unsigned kTiles = 1u << 24, kTilesOfBytes = 1u << 25;  // CPUID 7, EDX: AMX-TILE, AMX-INT8

bool may_use_tiles() {
  unsigned a, b, c, d;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & kTiles) == 0 || (d & kTilesOfBytes) == 0) return false;
  return has_avx512() && syscall(SYS_arch_prctl, kAskPermission, kTileData) == 0;
}

}  // namespace

bool has_amx() {
  static const bool has = may_use_tiles();
  return has;
}
#else
bool has_amx() { return false; }
#endif

}  // namespace foundry::cpu
