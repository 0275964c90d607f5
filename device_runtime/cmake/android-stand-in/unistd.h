/* What the binding of Java does with a folder it opened, in the place of the NDK's header. */
#ifndef TKT_STAND_IN_UNISTD_H
#define TKT_STAND_IN_UNISTD_H

#ifdef __cplusplus
extern "C" {
#endif

int fsync(int file);
int close(int file);

#ifdef __cplusplus
}
#endif
#endif /* TKT_STAND_IN_UNISTD_H */
