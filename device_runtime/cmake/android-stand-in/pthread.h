/* The threads of Android's C library as the runtime uses them, in the place of the NDK's header: types of the same size. */
#ifndef TKT_STAND_IN_PTHREAD_H
#define TKT_STAND_IN_PTHREAD_H

#include <signal.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef long pthread_t;
typedef long pthread_attr_t; /* only pointers to it are used, and only null ones */
typedef long pthread_mutexattr_t;
typedef long pthread_condattr_t;
#if defined(__LP64__)
typedef struct {
  int opaque[10];
} pthread_mutex_t;
typedef struct {
  int opaque[12];
} pthread_cond_t;
#else
typedef struct {
  int opaque[1];
} pthread_mutex_t;
typedef struct {
  int opaque[1];
} pthread_cond_t;
#endif

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument);
int pthread_join(pthread_t thread, void **result);
int pthread_sigmask(int how, const sigset_t *set, sigset_t *before);
int pthread_mutex_init(pthread_mutex_t *mutex, const pthread_mutexattr_t *attributes);
int pthread_mutex_lock(pthread_mutex_t *mutex);
int pthread_mutex_unlock(pthread_mutex_t *mutex);
int pthread_mutex_destroy(pthread_mutex_t *mutex);
int pthread_cond_init(pthread_cond_t *condition, const pthread_condattr_t *attributes);
int pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *mutex);
int pthread_cond_signal(pthread_cond_t *condition);
int pthread_cond_broadcast(pthread_cond_t *condition);
int pthread_cond_destroy(pthread_cond_t *condition);

#ifdef __cplusplus
}
#endif
#endif /* TKT_STAND_IN_PTHREAD_H */
