/* Of Android's signals what keeps them from a thread, in the place of the NDK's header. */
#ifndef TKT_STAND_IN_SIGNAL_H
#define TKT_STAND_IN_SIGNAL_H

#ifdef __cplusplus
extern "C" {
#endif

typedef unsigned long sigset_t;
#define SIG_SETMASK 2

int sigfillset(sigset_t *set);

#ifdef __cplusplus
}
#endif
#endif /* TKT_STAND_IN_SIGNAL_H */
