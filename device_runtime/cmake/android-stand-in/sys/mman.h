/* Pages of memory as the binding of Java takes them, in the place of the NDK's header. */
#ifndef TKT_STAND_IN_MMAN_H
#define TKT_STAND_IN_MMAN_H

#include <stddef.h>

#define PROT_READ 1
#define PROT_WRITE 2
#define MAP_PRIVATE 2
#define MAP_ANONYMOUS 0x20
#define MAP_FAILED ((void *)-1)

#ifdef __cplusplus
extern "C" {
#endif

void *mmap(void *at, size_t bytes, int protection, int flags, int file, long offset);
int munmap(void *at, size_t bytes);

#ifdef __cplusplus
}
#endif
#endif /* TKT_STAND_IN_MMAN_H */
