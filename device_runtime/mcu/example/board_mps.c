/* ARM's MPS2 and MPS3 boards (AN386, AN500, AN547), bare metal: vector table, start, text by semihosting. Instructions
 * come from SysTick, because QEMU with `-icount shift=7` moves the clock by 128 ns an instruction; on real hardware the
 * same register counts cycles of the clock.
 */
#include "board.h"
#include "ticket_runtime.h"

#define REGISTER(address) (*(volatile uint32_t *)(address))

enum { SEMIHOSTING_WRITE0 = 0x04, SEMIHOSTING_EXIT_EXTENDED = 0x20, APPLICATION_EXIT = 0x20026 };
enum { SYSTICK_TICKS = 1 << 24, STACK_PAINT = 0x5A5A5A5A };
static const uintptr_t kSysTickControl = 0xE000E010, kSysTickReload = 0xE000E014, kSysTickNow = 0xE000E018;
static const uintptr_t kInterruptState = 0xE000ED04, kCoprocessors = 0xE000ED88;

/* From the linker script. */
extern uint32_t link_stack[], link_stack_top[], link_data[], link_data_end[], link_data_in_flash[];
extern uint32_t link_bss[], link_bss_end[];
extern uint8_t link_arena[], link_ram_end[];

static uint32_t g_wraps;

static int semihosting(int operation, const void *argument) {
  register int r0 __asm__("r0") = operation;
  register const void *r1 __asm__("r1") = argument;
  __asm__ volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
  return r0;
}

static _Noreturn void stop(int status) {
  const uint32_t reason[2] = {APPLICATION_EXIT, (uint32_t)status};
  for (;;) semihosting(SEMIHOSTING_EXIT_EXTENDED, reason);
}

void board_write(const char *text) { semihosting(SEMIHOSTING_WRITE0, text); }

uint8_t *board_memory(size_t *bytes) {
  *bytes = (size_t)(link_ram_end - link_arena);
  return link_arena;
}

/* Ticks since the start. SysTick counts down from SYSTICK_TICKS - 1; a wrap may be pending while it is read. */
static uint64_t ticks(void) {
  const uint32_t pending = 1u << 26;
  uint32_t wraps, now;
  do {
    wraps = g_wraps;
    now = REGISTER(kSysTickNow);
  } while (wraps != g_wraps || (REGISTER(kInterruptState) & pending) != 0);
  return (uint64_t)wraps * SYSTICK_TICKS + (SYSTICK_TICKS - 1 - now);
}

uint64_t board_instructions(void) {
  const uint64_t instructions_a_second = 1000000000 / 128;
  return (ticks() * instructions_a_second + TKT_CLOCK_HZ / 2) / TKT_CLOCK_HZ;
}

size_t board_stack_bytes(void) {
  const volatile uint32_t *word = link_stack;
  while (*word == STACK_PAINT) ++word;
  return (size_t)((const uint8_t *)link_stack_top - (const volatile uint8_t *)word);
}

/* A fault cannot be mended here. A stack that overflows meets the end of RAM, and so ends here too. */
static void fault(void) {
  board_write("fault\n");
  stop(2);
}

static void count_wrap(void) { ++g_wraps; }

int main(void) { return train(TKT_KERNELS_AUTO); }

void reset(void);
void reset(void) {
  REGISTER(kCoprocessors) |= 0xFu << 20; /* the floating-point unit, before any float */
  __asm__ volatile("dsb\n isb" ::: "memory");
  uint32_t *below = __builtin_frame_address(0);
  for (uint32_t *word = link_stack; word < below - 16; ++word) *(volatile uint32_t *)word = STACK_PAINT;
  for (uint32_t *to = link_data, *from = link_data_in_flash; to < link_data_end;) *to++ = *from++;
  for (uint32_t *to = link_bss; to < link_bss_end;) *to++ = 0;
  REGISTER(kSysTickReload) = SYSTICK_TICKS - 1;
  REGISTER(kSysTickNow) = 0;
  REGISTER(kSysTickControl) = 7; /* on, with interrupt, from the processor's clock */
  stop(main());
}

typedef union Vector {
  uint32_t *stack;
  void (*handler)(void);
} Vector;

__attribute__((section(".vectors"), used)) static const Vector g_vectors[16] = {
    {.stack = link_stack_top}, {.handler = reset}, {.handler = fault}, {.handler = fault},
    {.handler = fault},        {.handler = fault}, {.handler = fault}, {.handler = fault},
    {.handler = fault},        {.handler = fault}, {.handler = fault}, {.handler = fault},
    {.handler = fault},        {.handler = fault}, {.handler = fault}, {.handler = count_wrap}};
