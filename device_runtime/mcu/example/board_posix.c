/* A computer as a board, to compare with: `train_ticket [scalar]`. */
#include <stdalign.h>
#include <stdio.h>
#include <string.h>

#include "board.h"
#include "ticket_runtime.h"

void board_write(const char *text) { fputs(text, stdout); }

uint8_t *board_memory(size_t *bytes) {
  static alignas(64) uint8_t memory[16 << 20];
  *bytes = sizeof memory;
  return memory;
}

uint64_t board_instructions(void) { return 0; }
size_t board_stack_bytes(void) { return 0; }

int main(int count, char **words) {
  int scalar = count > 1 && strcmp(words[1], "scalar") == 0;
  return train(scalar ? TKT_KERNELS_SCALAR : TKT_KERNELS_AUTO);
}
