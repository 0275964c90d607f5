/* What train.c needs of a board. A port to other hardware is these four functions, and a main that calls train(). */
#ifndef BOARD_H
#define BOARD_H

#include <stddef.h>
#include <stdint.h>

void board_write(const char *text);
uint8_t *board_memory(size_t *bytes); /* the RAM that is left for the arena, aligned to 64 bytes */
uint64_t board_instructions(void);    /* run since the start; 0 where nobody counts */
size_t board_stack_bytes(void);       /* the deepest the stack has been; 0 where nobody knows */

int train(uint32_t kernels); /* 0 if all went well */

#endif /* BOARD_H */
