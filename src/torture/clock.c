// Preloaded into an instance, shows it another wall clock: the file that TORTURE_CLOCK names holds the difference to the real
// one, as a 64-bit number of seconds in the byte order of the machine.
//
// What waits until a point in time of the wall clock waits until this one shows it, also when it is set meanwhile, as
// the kernel has it. Clocks that cannot be set are as they are.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

// How long a wait may last before it looks whether the clock was set.
#define SLICE_NS 50000000
#define SECOND_NS 1000000000

typedef int (*Gettime)(clockid_t, struct timespec *);
typedef int (*CndWait)(cnd_t *, mtx_t *, const struct timespec *);
typedef int (*CondWait)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);

static _Atomic int64_t not_set;
static _Atomic int64_t *difference = &not_set;
static Gettime real_gettime;
static CndWait real_cnd_wait;
static CondWait real_cond_wait;

__attribute__((constructor)) static void begin(void) {
  real_gettime = (Gettime)dlsym(RTLD_NEXT, "clock_gettime");
  real_cnd_wait = (CndWait)dlsym(RTLD_NEXT, "cnd_timedwait");
  // Without a version it may be the one of another age.
  real_cond_wait = (CondWait)dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
  if (real_cond_wait == NULL) real_cond_wait = (CondWait)dlsym(RTLD_NEXT, "pthread_cond_timedwait");
  const char *path = getenv("TORTURE_CLOCK");
  const int file = path == NULL ? -1 : open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return;
  void *mapped = mmap(NULL, sizeof *difference, PROT_READ, MAP_SHARED, file, 0);
  close(file);
  if (mapped != MAP_FAILED) difference = mapped;
}

static int64_t real_ns(void) {
  struct timespec now;
  if (real_gettime == NULL) syscall(SYS_clock_gettime, CLOCK_REALTIME, &now);
  else real_gettime(CLOCK_REALTIME, &now);
  return (int64_t)now.tv_sec * SECOND_NS + now.tv_nsec;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
  const int result =
      real_gettime == NULL ? (int)syscall(SYS_clock_gettime, clock, now) : real_gettime(clock, now);
  if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += *difference;
  return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  (void)zone;
  struct timespec found;
  const int result = clock_gettime(CLOCK_REALTIME, &found);
  *now = (struct timeval){found.tv_sec, found.tv_nsec / 1000};
  return result;
}

time_t time(time_t *now) {
  struct timespec found;
  clock_gettime(CLOCK_REALTIME, &found);
  if (now != NULL) *now = found.tv_sec;
  return found.tv_sec;
}

int timespec_get(struct timespec *now, int base) {
  return base == TIME_UTC && clock_gettime(CLOCK_REALTIME, now) == 0 ? base : 0;
}

// The real end of the next slice of a wait until `until`; 0 when this clock shows that already.
static int slice(const struct timespec *until, struct timespec *end) {
  const int64_t now = real_ns();
  const int64_t left = ((int64_t)until->tv_sec - *difference) * SECOND_NS + until->tv_nsec - now;
  if (left <= 0) return 0;
  const int64_t wake = now + (left < SLICE_NS ? left : SLICE_NS);
  *end = (struct timespec){wake / SECOND_NS, wake % SECOND_NS};
  return 1;
}

int cnd_timedwait(cnd_t *restrict condition, mtx_t *restrict mutex, const struct timespec *restrict until) {
  struct timespec end;
  int result = thrd_timedout;
  while (result == thrd_timedout && slice(until, &end)) result = real_cnd_wait(condition, mutex, &end);
  return result;
}

// For conditions that wait by the wall clock, as they do unless told otherwise.
int pthread_cond_timedwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict until) {
  struct timespec end;
  int result = ETIMEDOUT;
  while (result == ETIMEDOUT && slice(until, &end)) result = real_cond_wait(condition, mutex, &end);
  return result;
}
