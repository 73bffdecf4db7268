// Items of work that threads take as they come, within one parallel region.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <thread>

namespace leanmark {

// Nobody waits for a thread that has not begun: items are taken by whoever runs, and a phase is over as soon as
// those that were taken are done. So it ends with any number of threads, even if one of them runs all pieces of
// the parallel region one after the other; and one that wakes up late costs nothing but its help.
class Items {
 public:
  explicit Items(int64_t count) : count_(count) {}
  Items(Items&& other) : count_(other.count_) {}  // before the threads are there

  template <class Run>
  void take_singly(const Run& run) {
    for (int64_t item; (item = next_.fetch_add(1, std::memory_order_relaxed)) < count_;) run(item);
  }

  // Takes large stretches first, since neighbours lie together in memory, and small ones in the end, so that
  // all threads finish at about the same time. Returns when every item is done, whoever took it.
  template <class Run>
  void take_and_wait(int64_t workers, const Run& run) {
    int64_t begin = next_.load(std::memory_order_relaxed);
    while (begin < count_) {
      const int64_t end = begin + std::max<int64_t>(1, (count_ - begin) / (2 * workers));
      if (!next_.compare_exchange_weak(begin, end, std::memory_order_relaxed)) continue;
      run(begin, end);
      done_.fetch_add(end - begin, std::memory_order_release);
      begin = next_.load(std::memory_order_relaxed);
    }
    for (int64_t turn = 0; done_.load(std::memory_order_acquire) < count_; ++turn) wait(turn);
  }

 private:
  // Longer than a stretch of items takes: who yields to another program may get the core back milliseconds later.
  static constexpr int64_t kTurns = 10000;

  static void wait(int64_t turn) {
    if (turn > kTurns) return std::this_thread::yield();  // to the thread that is waited for, if it has no core
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  }

  const int64_t count_;
  alignas(64) std::atomic<int64_t> next_{0};
  alignas(64) std::atomic<int64_t> done_{0};
};

}  // namespace leanmark
