/* Trains one ticket on the samples in flash, one at a time, and tells the loss of every step as the bits of its float:
 * equal bits on every target. Uses ticket_runtime.h and the board, nothing else: no allocation, no stdio, no libm.
 */
#include <string.h>

#include "board.h"
#include "data.h"
#include "ticket_runtime.h"

#ifndef TKT_STEPS
#define TKT_STEPS 120
#endif
#ifndef TKT_MAX_ELEMENTS
#define TKT_MAX_ELEMENTS 1024
#endif

enum { STEPS = TKT_STEPS, MAX_ELEMENTS = TKT_MAX_ELEMENTS };

static tkt_error g_error;
static float g_sample[MAX_ELEMENTS];

static void write_digits(uint64_t value, uint32_t base, int at_least) {
  char text[24], *at = text + sizeof text;
  *--at = 0;
  for (int i = 0; value != 0 || i < at_least; ++i, value /= base) *--at = "0123456789abcdef"[value % base];
  board_write(at);
}

/* "name value", a line */
static void tell(const char *name, uint64_t value) {
  board_write(name);
  board_write(" ");
  write_digits(value, 10, 1);
  board_write("\n");
}

static void tell_step(uint32_t step, float loss, uint64_t instructions) {
  uint32_t bits;
  memcpy(&bits, &loss, sizeof bits);
  board_write("step ");
  write_digits(step, 10, 1);
  board_write(" loss 0x");
  write_digits(bits, 16, 8);
  board_write(" = ");
  write_digits((uint64_t)loss, 10, 1);
  board_write(".");
  write_digits((uint64_t)(loss * 1000.0f) % 1000, 10, 3);
  board_write(", instructions ");
  write_digits(instructions, 10, 1);
  board_write("\n");
}

/* The CRC-32 of all values: equal bits, not only equal losses. */
static uint32_t crc_of(const void *bytes, size_t count) {
  uint32_t crc = 0xFFFFFFFFu;
  for (const uint8_t *at = bytes; count > 0; ++at, --count) {
    crc ^= *at;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (0xEDB88320u & (0u - (crc & 1u)));
  }
  return ~crc;
}

static int failed(tkt_status status) {
  if (status == TKT_OK) return 0;
  board_write(tkt_status_name((int32_t)status));
  board_write(": ");
  board_write(g_error.text);
  board_write("\n");
  return 1;
}

/* Sample `index` as floats; its label. */
static int32_t load_sample(uint32_t index, uint32_t elements) {
  const uint8_t *sample = g_samples + (size_t)index * (1 + elements);
  for (uint32_t i = 0; i < elements; ++i) g_sample[i] = (float)sample[1 + i];
  return sample[0];
}

static int evaluate(tkt_trainer *trainer, uint32_t elements, uint32_t count) {
  uint32_t hits = 0;
  for (uint32_t i = 0; i < count; ++i) {
    double loss;
    uint32_t correct;
    const int32_t label = load_sample(i, elements);
    if (failed(tkt_evaluate(trainer, g_sample, &label, 1, &loss, &correct, &g_error))) return 1;
    hits += correct;
  }
  tell("correct", hits);
  return 0;
}

static int run_steps(tkt_trainer *trainer, uint32_t elements, uint32_t count) {
  for (uint32_t step = 1; step <= STEPS; ++step) {
    uint32_t index, drawn;
    float loss;
    if (failed(tkt_next_batch(trainer, count, &index, &drawn, &g_error))) return 1;
    const int32_t label = load_sample(index, elements);
    const uint64_t before = board_instructions();
    if (failed(tkt_train_step(trainer, g_sample, &label, 1, &loss, &g_error))) return 1;
    tell_step(step, loss, board_instructions() - before);
  }
  return 0;
}

int train(uint32_t kernels) {
  const size_t size = (size_t)(g_ticket_end - g_ticket);
  tkt_info info = {.struct_bytes = sizeof info};
  tkt_options options = {.struct_bytes = sizeof options};
  tkt_trainer *trainer;
  uint64_t arena_bytes;
  size_t memory_bytes;
  uint8_t *memory = board_memory(&memory_bytes);
  if (failed(tkt_inspect(g_ticket, size, &info, &g_error))) return 1;
  if (failed(tkt_default_options(g_ticket, size, &options, &g_error))) return 1;
  options.batch = 1;
  options.kernels = kernels;
  if (failed(tkt_arena_bytes(g_ticket, size, &options, &arena_bytes, &g_error))) return 1;
  const uint32_t elements = info.input_elements;
  const uint32_t count = (uint32_t)(g_samples_end - g_samples) / (1 + elements);
  if (elements > MAX_ELEMENTS || info.loss != TKT_CROSS_ENTROPY) {
    board_write("the example takes samples of at most TKT_MAX_ELEMENTS elements, with a label each\n");
    return 1;
  }
  tell("live weights", info.pruned_layer_live);
  tell("of weights", info.pruned_layer_weights);
  tell("samples", count);
  tell("arena bytes", arena_bytes);
  tell("memory bytes", memory_bytes);
  if (failed(tkt_open(g_ticket, size, &options, memory, memory_bytes, &trainer, &g_error))) return 1;
  tell("kernels", tkt_kernels_in_use(trainer));
  if (evaluate(trainer, elements, count)) return 1;
  if (run_steps(trainer, elements, count)) return 1;
  if (evaluate(trainer, elements, count)) return 1;
  tell("values crc", crc_of(tkt_values(trainer), (size_t)info.value_count * sizeof(float)));
  tell("stack bytes", board_stack_bytes());
  return 0;
}
