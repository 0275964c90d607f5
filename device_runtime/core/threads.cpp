// One piece of work at a time, whose number the threads wait for: awake for as long as the next piece of a step usually takes
// to come, then asleep. Without TKT_THREADS there is none but the caller's.
#include "core/threads.h"

// In vector operations: what is less than that, some ten microseconds, is sooner done than handed out.
#if !defined(TKT_WORTH_SHARING)
#define TKT_WORTH_SHARING 32768
#endif

#if defined(TKT_THREADS)
#include <pthread.h>
#include <signal.h>

namespace tkt {

struct Member {
  Team *team;
  uint32_t number;
  pthread_t thread;
};

struct Team {
  uint32_t size, started;  // threads besides the caller's
  PartFunction work;
  const void *context;
  uint32_t piece;             // the number of the work handed out last; atomic, like the next one
  uint32_t busy;              // members that have not finished it
  bool ending, caller_waits;  // guarded by `lock`, like what follows
  uint32_t asleep;
  pthread_mutex_t lock;
  pthread_cond_t handed_out, finished;
  Member *members;
};

namespace {

constexpr uint32_t kLooks = 2000;  // some ten microseconds

void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__) || defined(__arm__)
  __asm__ volatile("yield");
#endif
}

// True as soon as done() is, false if it is not for a while.
template <typename Done>
bool comes_soon(const Done &done) {
  for (uint32_t i = 0; i < kLooks; ++i) {
    if (done()) return true;
    pause();
  }
  return false;
}

// Waits for another piece than `last`; false at the end.
bool wait_for_work(Team &team, uint32_t last) {
  const auto come = [&] { return __atomic_load_n(&team.piece, __ATOMIC_ACQUIRE) != last; };
  if (!comes_soon(come)) {
    pthread_mutex_lock(&team.lock);
    ++team.asleep;
    while (!come()) pthread_cond_wait(&team.handed_out, &team.lock);
    --team.asleep;
    pthread_mutex_unlock(&team.lock);
  }
  return !team.ending;
}

void hand_out(Team &team) {
  __atomic_store_n(&team.busy, team.started, __ATOMIC_RELAXED);
  pthread_mutex_lock(&team.lock);
  __atomic_fetch_add(&team.piece, 1, __ATOMIC_RELEASE);
  if (team.asleep > 0) pthread_cond_broadcast(&team.handed_out);
  pthread_mutex_unlock(&team.lock);
}

void hand_out_parts(Team *team, PartFunction work, const void *context) {
  const auto finished = [=] { return __atomic_load_n(&team->busy, __ATOMIC_ACQUIRE) == 0; };
  team->work = work;
  team->context = context;
  hand_out(*team);
  work(context, 0, team->size + 1);
  if (comes_soon(finished)) return;
  pthread_mutex_lock(&team->lock);
  team->caller_waits = true;
  while (!finished()) pthread_cond_wait(&team->finished, &team->lock);
  team->caller_waits = false;
  pthread_mutex_unlock(&team->lock);
}

void *run_member(void *argument) {
  const Member &member = *static_cast<const Member *>(argument);
  Team &team = *member.team;
  for (uint32_t last = 0; wait_for_work(team, last);) {
    last = __atomic_load_n(&team.piece, __ATOMIC_RELAXED);
    team.work(team.context, member.number, team.size + 1);
    if (__atomic_fetch_sub(&team.busy, 1, __ATOMIC_ACQ_REL) > 1) continue;
    pthread_mutex_lock(&team.lock);
    if (team.caller_waits) pthread_cond_signal(&team.finished);
    pthread_mutex_unlock(&team.lock);
  }
  return nullptr;
}

}  // namespace

Team *lay_out_team(const tkt_options &options, Arena &arena) {
  if (options.threads < 2) return nullptr;
  Team *team = arena.take<Team>(kBookkeeping, 1);
  Member *members = arena.take<Member>(kBookkeeping, options.threads - 1);
  if (team == nullptr) return nullptr;
  team->size = options.threads - 1;
  team->members = members;
  return team;
}

// The application's signals are not for these threads.
bool start_team(Team *team) {
  if (team == nullptr) return true;
  pthread_mutex_init(&team->lock, nullptr);
  pthread_cond_init(&team->handed_out, nullptr);
  pthread_cond_init(&team->finished, nullptr);
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  for (uint32_t i = 0; i < team->size; ++i) {
    Member &member = team->members[i];
    member.team = team;
    member.number = i + 1;
    if (pthread_create(&member.thread, nullptr, run_member, &member) != 0) break;
    ++team->started;
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (team->started == team->size) return true;
  stop_team(team);
  return false;
}

void stop_team(Team *team) {
  if (team == nullptr) return;
  pthread_mutex_lock(&team->lock);
  team->ending = true;
  pthread_mutex_unlock(&team->lock);
  hand_out(*team);
  for (uint32_t i = 0; i < team->started; ++i) pthread_join(team->members[i].thread, nullptr);
  pthread_cond_destroy(&team->finished);
  pthread_cond_destroy(&team->handed_out);
  pthread_mutex_destroy(&team->lock);
}

}  // namespace tkt

#else

namespace tkt {

Team *lay_out_team(const tkt_options &, Arena &) { return nullptr; }
bool start_team(Team *) { return true; }
void stop_team(Team *) {}
namespace {
void hand_out_parts(Team *, PartFunction, const void *) {}
}  // namespace

}  // namespace tkt

#endif

namespace tkt {

void in_parts(const tkt_trainer &trainer, uint64_t cost, PartFunction work, const void *context) {
  if (trainer.team == nullptr || cost < TKT_WORTH_SHARING) return work(context, 0, 1);
  hand_out_parts(trainer.team, work, context);
}

void range_in_parts(const tkt_trainer &trainer, uint32_t count, uint32_t unit, uint64_t cost, RangeFunction work,
                    const void *context) {
  in_parts(trainer, cost, [=](uint32_t part, uint32_t parts) {
    const uint32_t first = part_begin(count, unit, part, parts), last = part_begin(count, unit, part + 1, parts);
    if (first < last) work(context, first, last);
  });
}

void rows_in_parts(const tkt_trainer &trainer, const Matrix &m, uint64_t vectors, RangeFunction work,
                   const void *context) {
  in_parts(trainer, m.stored * vectors, [&](uint32_t part, uint32_t parts) {
    const uint32_t first = first_row_of_part(m, part, parts), last = first_row_of_part(m, part + 1, parts);
    if (first < last) work(context, first, last);
  });
}

}  // namespace tkt
