/* What clang's own <immintrin.h> needs declared, in the place of the NDK's header; the runtime calls none of it. */
#ifndef TKT_STAND_IN_STDLIB_H
#define TKT_STAND_IN_STDLIB_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

void *malloc(size_t bytes);
void free(void *memory);
int posix_memalign(void **memory, size_t alignment, size_t bytes);

#ifdef __cplusplus
}
#endif
#endif /* TKT_STAND_IN_STDLIB_H */
