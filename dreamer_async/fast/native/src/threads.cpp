// A thread that has just helped looks out for more work for a moment before it sleeps: the next
// piece of an update mostly comes within microseconds, and waking a sleeping core takes
// milliseconds on some machines. It never waits longer, because others need the cores, too.

#include "threads.h"

#include <pthread.h>
#include <sched.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

namespace {

constexpr std::chrono::microseconds LOOK_OUT{200};

inline void rest() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#endif
}

class Helpers {
 public:
  void parallel_for(long pieces, int threads, void (*work)(const void *, long),
                    const void *context) {
    std::unique_lock<std::mutex> turn(turn_, std::defer_lock);
    if (threads < 2 || pieces < 2 || !turn.try_lock()) {
      for (long i = 0; i < pieces; i++) work(context, i);
      return;
    }
    while (static_cast<int>(threads_.size()) < threads - 1) {
      threads_.emplace_back([this, i = static_cast<int>(threads_.size())] { help(i); });
      away_from_ = -1;
    }
    keep_away(sched_getcpu());
    work_ = work;
    context_ = context;
    pieces_ = pieces;
    next_ = 0;
    wanted_ = threads - 1;
    {
      const std::lock_guard<std::mutex> lock(sleep_);
      round_++;
      open_ = true;
    }
    wake_.notify_all();
    take();
    open_ = false;
    // Whoever is inside has a piece in hand or leaves at once.
    for (int looks = 0; inside_ > 0; looks++) looks < 1000 ? rest() : void(sched_yield());
  }

 private:
  void take() {
    for (long i = next_++; i < pieces_; i = next_++) work_(context_, i);
  }

  // Linux likes to wake a helper on the core of the one that calls it, where it takes its place for
  // milliseconds while other cores are idle.
  void keep_away(int core) {
    cpu_set_t cores;
    if (core == away_from_ || core < 0 || sched_getaffinity(0, sizeof cores, &cores)) return;
    away_from_ = core;
    CPU_CLR(core, &cores);
    if (!CPU_COUNT(&cores)) return;
    for (std::thread &thread : threads_)
      pthread_setaffinity_np(thread.native_handle(), sizeof cores, &cores);
  }

  void help(int index) {
    for (long seen = 0;;) {
      const auto until = std::chrono::steady_clock::now() + LOOK_OUT;
      while (round_ == seen && std::chrono::steady_clock::now() < until) rest();
      if (round_ == seen) {
        std::unique_lock<std::mutex> lock(sleep_);
        wake_.wait(lock, [&] { return round_ != seen; });
      }
      seen = round_;
      inside_++;
      if (open_ && index < wanted_) take();  // nothing of a round is read before it is open
      inside_--;
    }
  }

  std::mutex turn_, sleep_;
  std::condition_variable wake_;
  std::vector<std::thread> threads_;
  int away_from_ = -1;
  void (*work_)(const void *, long) = nullptr;
  const void *context_ = nullptr;
  long pieces_ = 0;
  int wanted_ = 0;
  std::atomic<long> next_{0}, round_{0};
  std::atomic<int> inside_{0};
  std::atomic<bool> open_{false};
};

Helpers *helpers = nullptr;  // never destroyed: its threads outlive everything else

void start_anew() { helpers = new Helpers; }

// A forked process has none of the threads.
const int registered = (start_anew(), pthread_atfork(nullptr, nullptr, start_anew));

}  // namespace

void parallel_for(long pieces, int threads, void (*work)(const void *, long), const void *context) {
  helpers->parallel_for(pieces, threads, work, context);
}
