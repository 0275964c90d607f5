/* Values below the smallest normal float are kept, by every kernel set that this processor has: a vector unit that flushes
 * them to zero (32-bit NEON, MVE) must not compute floats. From values of 0, one step of SGD at a learning rate of 1e-38
 * leaves -learning_rate * gradient in every bias of the output, and nothing anywhere else.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "artifact_writer.h"
#include "ticket_runtime.h"

enum { INPUTS = 6, HIDDEN = 4, CLASSES = 37, ARENA = 1 << 20 };

static Ticket g_ticket;
static uint64_t g_file[MAX_FILE / 8];

static void set_values_to_zero(void) {
  uint8_t *bytes = (uint8_t *)g_file, *entry = bytes + 64 + 16 * (SECTION_INIT - 1);
  memset(bytes + get_u32(entry + 4), 0, get_u32(entry + 8));
  seal(bytes);
}

/* -1: these kernels are not in this build or processor. */
static int check(uint32_t kernels, void *arena) {
  const float samples[INPUTS] = {0};
  const int32_t label = 3;
  tkt_error error = {""};
  tkt_options options;
  tkt_trainer *trainer;
  float loss;
  options.struct_bytes = sizeof options;
  if (tkt_default_options(g_file, g_ticket.size, &options, &error) != TKT_OK) return 1;
  options.kernels = kernels;
  options.optimizer = TKT_SGD;
  options.momentum = 0.0f;
  options.learning_rate = 1e-38f;
  if (tkt_open(g_file, g_ticket.size, &options, arena, ARENA, &trainer, &error) == TKT_INVALID_INPUT) return -1;
  if (tkt_train_step(trainer, samples, &label, 1, &loss, &error) != TKT_OK) return 1;
  const float *biases = tkt_values(trainer) + g_ticket.value_count - CLASSES;
  for (int j = 0; j < CLASSES; ++j) {
    const float probability = 1.0f / (float)CLASSES, gradient = j == label ? probability - 1.0f : probability;
    const float right = -1e-38f * gradient;
    const int subnormal = fpclassify(biases[j]) == FP_SUBNORMAL;
    if (subnormal && memcmp(&biases[j], &right, sizeof right) == 0) continue;
    fprintf(stderr, "subnormals_test: kernels %d leave bias %d at %a instead of %a\n", (int)kernels, j,
            (double)biases[j], (double)right);
    return 1;
  }
  return 0;
}

int main(void) {
  void *arena = malloc(ARENA);
  int checked = 0;
  write_artifact(&g_ticket, (uint8_t *)g_file, INPUTS, HIDDEN, CLASSES, 40);
  set_values_to_zero();
  for (uint32_t kernels = TKT_KERNELS_AUTO; kernels <= TKT_KERNELS_NEON; ++kernels) {
    int outcome = arena ? check(kernels, arena) : 1;
    if (outcome == 1) return 1;
    checked += outcome == 0;
  }
  free(arena);
  printf("subnormals_test: %d kernel sets keep subnormal values\n", checked);
  return checked >= 2 ? 0 : 1;
}
