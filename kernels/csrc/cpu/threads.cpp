#include "cpu/threads.h"

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <limits>
#include <string>
#include <vector>

namespace leanmark {
namespace {

constexpr double kBytesPerNs = 256, kMultiplyAddsPerNs = 512;  // L2 cache and byte products at 5 GHz, in vectors of 64
constexpr int64_t kGain = 3;
constexpr double kLeastRegionNs = 500;  // of any machine
constexpr int64_t kPieces = 8;  // in which a thread takes its stretch, for others to take over
constexpr int64_t kNever = std::numeric_limits<int64_t>::max() / kGain;

int64_t now_ns() {
  return std::chrono::nanoseconds(std::chrono::steady_clock::now().time_since_epoch()).count();
}

int64_t measured_region_ns(int64_t threads) {
  std::array<int64_t, 11> times;
  std::atomic<int64_t> calls;
  for (size_t i = 0; i < times.size() + 2; ++i) {  // the first ones may have to create threads
    calls = 0;
    const int64_t began = now_ns();
    torch::stable::parallel_for(0, threads, 1, [&](int64_t, int64_t) { ++calls; });
    times[i % times.size()] = now_ns() - began;
  }
  if (calls < threads) return kNever;  // this is within a parallel region already
  const auto quarter = times.begin() + times.size() / 4;  // the load of others only adds
  std::nth_element(times.begin(), quarter, times.end());
  return *quarter;
}

int64_t region_ns(int64_t threads) {
  static std::array<std::atomic<int64_t>, 1024> known{};
  std::atomic<int64_t>& entry = known[std::min<size_t>(threads, known.size() - 1)];
  int64_t ns = entry.load(std::memory_order_relaxed);
  if (ns == 0) {
    ns = measured_region_ns(threads);
    if (ns < kNever) entry.store(ns, std::memory_order_relaxed);
  }
  return ns;
}

// Whether work of that length is worth sharing out. Measuring starts torch's threads, so that is left until it
// can matter: a process that is forked later could not use them.
bool gains(double ns, int64_t threads) {
  static const char* given = std::getenv("LEANMARK_REGION_NS");
  if (given) return ns >= double(kGain * std::min<int64_t>(std::max(0ll, std::atoll(given)), kNever));
  return ns >= kGain * kLeastRegionNs && ns >= double(kGain * region_ns(threads));
}

// A thread's own items: [next, end) are not yet taken. On a cache line of its own.
struct alignas(64) Stretch {
  std::atomic<int64_t> next;
  int64_t end;
};

void split(int64_t begin, int64_t end, int64_t threads, RunItems run, const void* context) {
  std::vector<Stretch> stretches(threads);
  for (int64_t i = 0; i < threads; ++i) {
    stretches[i].next = begin + (end - begin) * i / threads;
    stretches[i].end = begin + (end - begin) * (i + 1) / threads;
  }
  const int64_t piece = std::max<int64_t>(1, (end - begin) / (threads * kPieces));
  torch::stable::parallel_for(0, threads, 1, [&](int64_t worker, int64_t) {
    for (int64_t i = 0; i < threads; ++i) {
      Stretch& from = stretches[(worker + i) % threads];
      for (int64_t at; (at = from.next.fetch_add(piece, std::memory_order_relaxed)) < from.end;) {
        run(context, at, std::min(from.end, at + piece), worker);
      }
    }
  });
}

}  // namespace

double Work::least_ns() const { return std::max(bytes / kBytesPerNs, multiply_adds / kMultiplyAddsPerNs); }

void share_out(int64_t items, const Work& work, RunItems run, const void* context) {
  const int64_t threads = items > 1 ? torch::stable::get_num_threads() : 1;
  if (threads == 1) {
    if (items > 0) run(context, 0, items, 0);
    return;
  }
  if (gains(work.least_ns(), threads)) return split(0, items, threads, run, context);
  const int64_t began = now_ns();
  for (int64_t done = 0, next = 1; done < items; next = std::min(2 * done, items)) {
    run(context, done, next, 0);
    done = next;
    const double per_item = double(now_ns() - began) / done;
    if (items - done > 1 && gains(per_item * (items - done), threads)) {
      return split(done, items, threads, run, context);
    }
  }
}

}  // namespace leanmark
