/* Numbers below the smallest normal float are kept, by every kernel set that this processor has: a vector unit that flushes
 * them to zero (32-bit NEON, MVE) must not compute floats. All values are 0 but the biases of the hidden layer, which are
 * subnormal: so the activations are, the gradient of the last layer's weights is, and these weights are after one step.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "artifact_writer.h"
#include "ticket_runtime.h"

enum { INPUTS = 6, HIDDEN = 4, CLASSES = 37, HIDDEN_BIAS = 1, LAST_WEIGHT = 3, ARENA = 1 << 20 };

static Ticket g_ticket;
static uint64_t g_file[MAX_FILE / 8];

static const float kTiny = 3e-39f;

static uint32_t first_value(uint32_t param) {
  uint32_t first = 0;
  for (uint32_t p = 0; p < param; ++p) first += g_ticket.nnz[p];
  return first;
}

static void set_values(void) {
  uint8_t *bytes = (uint8_t *)g_file, *entry = bytes + 64 + 16 * (SECTION_INIT - 1);
  float *values = (float *)(void *)(bytes + get_u32(entry + 4));
  memset(values, 0, get_u32(entry + 8));
  for (uint32_t i = 0; i < HIDDEN; ++i) values[first_value(HIDDEN_BIAS) + i] = kTiny;
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
  options.learning_rate = 1.0f;
  if (tkt_open(g_file, g_ticket.size, &options, arena, ARENA, &trainer, &error) == TKT_INVALID_INPUT) return -1;
  if (tkt_train_step(trainer, samples, &label, 1, &loss, &error) != TKT_OK) return 1;
  const float *weights = tkt_values(trainer) + first_value(LAST_WEIGHT);
  for (int k = 0; k < CLASSES * HIDDEN; ++k) {
    const float probability = 1.0f / (float)CLASSES;
    const float gradient = k / HIDDEN == label ? probability - 1.0f : probability;
    const float right = -(gradient * kTiny);
    if (fpclassify(weights[k]) == FP_SUBNORMAL && memcmp(&weights[k], &right, sizeof right) == 0) continue;
    fprintf(stderr, "subnormals_test: kernels %d leave weight %d at %g instead of %g\n", (int)kernels, k,
            (double)weights[k], (double)right);
    return 1;
  }
  return 0;
}

int main(void) {
  void *arena = malloc(ARENA);
  int checked = 0;
  write_artifact(&g_ticket, (uint8_t *)g_file, INPUTS, HIDDEN, CLASSES, 40);
  set_values();
  for (uint32_t kernels = TKT_KERNELS_AUTO; kernels <= TKT_KERNELS_NEON; ++kernels) {
    int outcome = arena ? check(kernels, arena) : 1;
    if (outcome == 1) return 1;
    checked += outcome == 0;
  }
  free(arena);
  printf("subnormals_test: %d kernel sets keep subnormal values\n", checked);
  return checked >= 2 ? 0 : 1;
}
