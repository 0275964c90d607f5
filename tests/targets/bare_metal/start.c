/* Starts the C tests on an emulated Cortex-M: the floating-point unit first, then newlib, whose stdio and exit status go
 * through the debugger (semihosting). The emulator has loaded all of RAM already.
 */
#include <stdint.h>
#include <stdlib.h>

extern uint32_t link_stack_top[], link_bss[], end[];
int main(int count, char **words);
void initialise_monitor_handles(void);
void reset(void);

void reset(void) {
  *(volatile uint32_t *)0xE000ED88u |= 0xFu << 20;
  __asm__ volatile("dsb\n isb" ::: "memory");
  for (uint32_t *word = link_bss; word < end; ++word) *word = 0;
  initialise_monitor_handles();
  static char name[] = "test", argument[] = TKT_TEST_ARGUMENT;
  static char *words[] = {name, argument, NULL};
  exit(main(2, words));
}

typedef union Vector {
  uint32_t *stack;
  void (*handler)(void);
} Vector;

/* A fault stops the emulator with an error: the next word is no handler. */
__attribute__((section(".vectors"), used)) static const Vector g_vectors[] = {{.stack = link_stack_top},
                                                                              {.handler = reset}};
