// Whether work is shared out over torch's threads, and how: decided by measurement.
//
// An empty parallel region takes about 1 µs while idle threads spin (OMP_WAIT_POLICY=active) and 30 to 100 µs
// where they sleep (passive). That is measured once for every number of threads, when it first matters; from then on
// torch's threads are there, and a process that is forked could not use them. The rule:
//   * Work that takes longer than kGain regions on the fastest core there is (Work::least_ns) is shared out.
//   * Otherwise the calling thread begins, and times itself. As soon as what is left would take it longer than
//     kGain regions, the rest is shared out; it never is where everything is done before.
// Each thread starts with a stretch of its own, the same in every call, so that a core's cache keeps what it
// needs. Whoever is done takes over from the others, so late wakers cost no more than the region itself.
//
// The environment variable LEANMARK_REGION_NS gives the nanoseconds instead of the measurement, for decisions
// that can be repeated: 0 shares out everything.
#pragma once

#include <cstdint>

namespace leanmark {

// All items together.
struct Work {
  double bytes;          // that have to be read
  double multiply_adds;

  double least_ns() const;
};

using RunItems = void (*)(const void* context, int64_t begin, int64_t end, int64_t worker);

void share_out(int64_t items, const Work& work, RunItems run, const void* context);

// run(begin, end, worker) until all of [0, items) are done, each exactly once, by worker 0 alone or by workers
// 0 to torch's number of threads - 1, no two calls of the same worker at once. Items should take about as long
// as one another, be several for each thread, and give the same results whoever computes them.
template <class Function>
void parallel_for(int64_t items, const Work& work, const Function& run) {
  const auto call = [](const void* context, int64_t begin, int64_t end, int64_t worker) {
    (*static_cast<const Function*>(context))(begin, end, worker);
  };
  share_out(items, work, call, &run);
}

}  // namespace leanmark
