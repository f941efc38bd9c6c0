// What the machine allows now, as a line of JSON: `limits THREADS [SECONDS]`.
// Reading memory on huge and on small pages, f32 multiply-adds, and 8-bit dots as far as this instruction set has them:
// each on all threads at once, the best of some spells, for a limit is what is reached undisturbed.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <barrier>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <thread>
#include <vector>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__ARM_FEATURE_DOTPROD)
#include <arm_neon.h>
#endif

namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif
using Floats = float __attribute__((vector_size(kVectorBytes)));
using Words = uint64_t __attribute__((vector_size(kVectorBytes)));

constexpr int kSpells = 5;
constexpr uint64_t kHugePage = uint64_t{2} << 20;
constexpr int kChains =
    12;  // dots or multiply-adds in flight: latency times throughput of the machines there are, and some

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point began) { return std::chrono::duration<double>(Clock::now() - began).count(); }

template <class T>
void keep(T& value) {  // the compiler may not leave out what makes it
  asm volatile("" : "+m"(value) : : "memory");
}

/// The most units a second that all threads reach together: work(thread) does some and returns how many, over and over.
double best_rate(int threads, double seconds, const std::function<double(int)>& work) {
  std::vector<double> done(threads), took(threads);
  std::barrier together(threads);
  double best = 0;
  std::atomic<bool> stop;
  const auto run = [&](int t) {
    for (int spell = 0; spell < kSpells; ++spell) {
      done[t] = 0;
      stop = false;
      together.arrive_and_wait();
      const auto began = Clock::now();
      while (!stop) {
        done[t] += work(t);
        if (seconds_since(began) > seconds / kSpells) stop = true;  // the first one ends it for all
      }
      took[t] = seconds_since(began);
      together.arrive_and_wait();
      if (t == 0) {
        double rate = 0;
        for (int i = 0; i < threads; ++i) rate += done[i] / took[i];
        best = std::max(best, rate);
      }
      together.arrive_and_wait();
    }
  };
  std::vector<std::thread> others;
  for (int t = 1; t < threads; ++t) others.emplace_back(run, t);
  run(0);
  for (std::thread& thread : others) thread.join();
  return best;
}

/// Memory of its own for each thread, touched by it, on huge pages or never on them.
class Memory {
 public:
  Memory(int threads, uint64_t bytes, bool huge)
      : part_((bytes / threads) / kHugePage * kHugePage), bytes_(part_ * threads) {
    mapped_ = mmap(nullptr, bytes_ + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped_ == MAP_FAILED) std::perror("mmap"), std::exit(1);
    const auto at = (reinterpret_cast<uintptr_t>(mapped_) + kHugePage - 1) / kHugePage * kHugePage;
    data_ = reinterpret_cast<std::byte*>(at);
#if defined(MADV_HUGEPAGE)
    advised_ = madvise(data_, bytes_, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE) == 0;
#endif
    std::vector<std::thread> touching;
    for (int t = 0; t < threads; ++t) touching.emplace_back([this, t] { std::memset(part(t), 1, part_); });
    for (std::thread& thread : touching) thread.join();
  }
  ~Memory() { munmap(mapped_, bytes_ + kHugePage); }
  bool advised() const { return advised_; }
  std::byte* part(int t) const { return data_ + part_ * t; }
  uint64_t part_bytes() const { return part_; }

 private:
  uint64_t part_, bytes_;
  void* mapped_;
  std::byte* data_;
  bool advised_ = false;
};

/// Bytes read of a MiB at a time, so that a spell ends soon.
double read_rate(int threads, double seconds, const Memory& memory) {
  constexpr uint64_t kStep = uint64_t{1} << 20;
  std::vector<uint64_t> at(threads * 16);  // each in a line of its own
  return best_rate(threads, seconds, [&](int t) {
    const std::byte* p = memory.part(t) + at[t * 16];
    at[t * 16] = (at[t * 16] + kStep) % memory.part_bytes();
    Words sums[8] = {};
    for (uint64_t i = 0; i < kStep; i += 8 * kVectorBytes)
      for (int k = 0; k < 8; ++k) {
        Words words;
        std::memcpy(&words, p + i + k * kVectorBytes, kVectorBytes);
        sums[k] ^= words;
      }
    for (Words& sum : sums) keep(sum);
    return double(kStep);
  });
}

/// 65,536 rounds of kChains independent instructions; returns operations.
double multiply_adds(int) {
  constexpr int kRounds = 1 << 16;
  Floats sums[kChains], a, b;
  for (int k = 0; k < kChains; ++k) sums[k] = Floats{} + float(k);
  a = Floats{} + 0.999f, b = Floats{} + 0.001f;
  keep(a), keep(b);
  Floats fixed = a, more = b;
  for (int i = 0; i < kRounds; ++i)
#pragma GCC unroll 12
    for (int k = 0; k < kChains; ++k) sums[k] = sums[k] * fixed + more;
  for (Floats& sum : sums) keep(sum);
  return 2.0 * kRounds * kChains * (kVectorBytes / 4);
}

#if defined(__AVX512VNNI__)
constexpr const char* kDot = "vpdpbusd, 512 bits";
using Dot = __m512i;
Dot dot(Dot sum, Dot a, Dot b) { return _mm512_dpbusd_epi32(sum, a, b); }
#elif defined(__AVXVNNI__)
constexpr const char* kDot = "vpdpbusd, 256 bits";
using Dot = __m256i;
Dot dot(Dot sum, Dot a, Dot b) { return _mm256_dpbusd_avx_epi32(sum, a, b); }
#elif defined(__AVX2__)
constexpr const char* kDot = "vpmaddubsw, vpmaddwd and vpaddd, 256 bits";
using Dot = __m256i;
Dot dot(Dot sum, Dot a, Dot b) {
  return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), _mm256_set1_epi16(1)));
}
#elif defined(__ARM_FEATURE_DOTPROD)
constexpr const char* kDot = "sdot, 128 bits";
using Dot = int32x4_t;
Dot dot(Dot sum, Dot a, Dot b) { return vdotq_s32(sum, vreinterpretq_s8_s32(a), vreinterpretq_s8_s32(b)); }
#else
constexpr const char* kDot = "";
#endif

double byte_dots(int) {
#if defined(__AVX2__) || defined(__ARM_FEATURE_DOTPROD)
  constexpr int kRounds = 1 << 16;
  Dot sums[kChains], a, weights[kChains];
  std::memset(sums, 0, sizeof sums), std::memset(&a, 1, sizeof a), std::memset(weights, 2, sizeof weights);
  for (int i = 0; i < kRounds; ++i) {
    asm volatile("" : "+m"(weights));  // read again: what doesn't change would be multiplied once
#pragma GCC unroll 12
    for (int k = 0; k < kChains; ++k) sums[k] = dot(sums[k], a, weights[k]);
  }
  for (Dot& sum : sums) keep(sum);
  return 2.0 * kRounds * kChains * sizeof(Dot);
#else
  return 0;
#endif
}

uint64_t buffer_bytes() {
  long cache = 0;
#if defined(_SC_LEVEL3_CACHE_SIZE)
  cache = std::max(0L, sysconf(_SC_LEVEL3_CACHE_SIZE));
#endif
  return std::max(uint64_t{512} << 20, uint64_t(cache) * 4);
}

}  // namespace

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::max(1, std::atoi(argv[1])) : 1;
  const double seconds = argc > 2 ? std::atof(argv[2]) : 0.5;
  double reads[2];
  bool advised = false;
  for (const bool huge : {true, false}) {
    const Memory memory(threads, buffer_bytes(), huge);
    if (huge) advised = memory.advised();
    reads[huge] = read_rate(threads, seconds, memory);
  }
  const double flops = best_rate(threads, seconds, multiply_adds), dots = best_rate(threads, seconds, byte_dots);
  std::printf(
      "{\"threads\": %d, \"read_huge\": %.4g, \"read_small\": %.4g, \"f32\": %.4g, \"int8\": %.4g, \"dot\": \"%s\", "
      "\"huge_pages\": %s}\n",
      threads, reads[1], reads[0], flops, dots, kDot, advised ? "true" : "false");
}
