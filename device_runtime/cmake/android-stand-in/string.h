/* All that the runtime needs of the C library, in the place of the NDK's header. */
#ifndef TKT_STAND_IN_STRING_H
#define TKT_STAND_IN_STRING_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

void *memcpy(void *to, const void *from, size_t count);
void *memmove(void *to, const void *from, size_t count);
void *memset(void *to, int byte, size_t count);
int memcmp(const void *a, const void *b, size_t count);

#ifdef __cplusplus
}
#endif
#endif /* TKT_STAND_IN_STRING_H */
