// Threads that share the pieces of a piece of work.

#pragma once

// Call work(context, i) for each i below `pieces`, on at most `threads` threads, this one included.
//
// Which thread takes which piece changes from call to call; so what a piece computes must not
// depend on it. While the other threads are busy for someone else this one does everything.
void parallel_for(long pieces, int threads, void (*work)(const void *, long), const void *context);

template <typename Work>
void parallel_for(long pieces, int threads, const Work &work) {
  const auto call = [](const void *context, long i) { (*static_cast<const Work *>(context))(i); };
  parallel_for(pieces, threads, call, &work);
}
