/* Of opening files what a folder takes, in the place of the NDK's header. */
#ifndef TKT_STAND_IN_FCNTL_H
#define TKT_STAND_IN_FCNTL_H

#define O_RDONLY 0

#ifdef __cplusplus
extern "C" {
#endif

int open(const char *path, int flags, ...);

#ifdef __cplusplus
}
#endif
#endif /* TKT_STAND_IN_FCNTL_H */
