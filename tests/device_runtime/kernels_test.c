/* Every kernel set that this processor has gives the bits of the scalar one: losses, values, gradients and predictions
 * of fifty steps, whole and partial groups of sixteen samples, every optimizer.
 */
#include <stdio.h>
#include <stdlib.h>

#include "artifact_writer.h"
#include "ticket_runtime.h"

/* Of all outcomes, on every target. It changes only together with the section Arithmetic of FORMAT.md. */
#define DIGEST 0x833b1b6au

enum { INPUTS = 70, HIDDEN = 41, CLASSES = 5, STEPS = 50, SAMPLES = 150 };

static Ticket g_ticket;
static uint64_t g_file[MAX_FILE / 8];
static float g_samples[SAMPLES * INPUTS];
static int32_t g_labels[SAMPLES];

typedef struct Outcome {
  float losses[STEPS], values[MAX_VALUES], gradients[MAX_VALUES], probabilities[SAMPLES * CLASSES];
  double loss_sum;
  uint32_t correct;
} Outcome;

static void require(int condition, const char *what, const tkt_error *error) {
  if (condition) return;
  fprintf(stderr, "kernels_test: %s [%s]\n", what, error->text);
  exit(1);
}

static int is_available(tkt_options options, uint32_t kernels) {
  tkt_trainer *trainer;
  uint64_t bytes = 0;
  options.kernels = kernels;
  tkt_arena_bytes(g_file, g_ticket.size, &options, &bytes, NULL);
  void *arena = malloc(bytes);
  tkt_status status = tkt_open(g_file, g_ticket.size, &options, arena, bytes, &trainer, NULL);
  free(arena);
  return status == TKT_OK;
}

static void run(tkt_options options, uint32_t kernels, Outcome *outcome) {
  tkt_error error = {""};
  tkt_trainer *t;
  uint64_t bytes = 0;
  const uint32_t batch = options.batch;
  options.kernels = kernels;
  require(tkt_arena_bytes(g_file, g_ticket.size, &options, &bytes, &error) == TKT_OK, "arena", &error);
  void *arena = malloc(bytes);
  memset(arena, 0xFF, bytes);
  require(tkt_open(g_file, g_ticket.size, &options, arena, bytes, &t, &error) == TKT_OK, "open", &error);
  require(tkt_kernels_in_use(t) == kernels, "kernels in use", &error);
  for (uint32_t step = 0; step < STEPS; ++step) {
    uint32_t first = step * 13 % (SAMPLES - batch), count = step % 5 == 4 ? (batch + 1) / 2 : batch;
    tkt_status status =
        tkt_train_step(t, g_samples + first * INPUTS, g_labels + first, count, &outcome->losses[step], &error);
    require(status == TKT_OK, "step", &error);
  }
  memcpy(outcome->values, tkt_values(t), 4 * g_ticket.value_count);
  memcpy(outcome->gradients, tkt_gradients(t), 4 * g_ticket.value_count);
  require(tkt_predict(t, g_samples, SAMPLES, outcome->probabilities, &error) == TKT_OK, "predict", &error);
  tkt_status status = tkt_evaluate(t, g_samples, g_labels, SAMPLES, &outcome->loss_sum, &outcome->correct, &error);
  require(status == TKT_OK, "evaluate", &error);
  free(arena);
}

static uint32_t digest_of(const Outcome *outcome, uint32_t before) {
  const uint32_t parts[] = {before, crc_of((const uint8_t *)outcome, sizeof *outcome)};
  return crc_of((const uint8_t *)parts, sizeof parts);
}

/* Runs the scalar kernels and every other set; returns how many sets there were. Parts that differ are told. */
static uint32_t compare_all(const tkt_options *options, uint32_t *digest) {
  static Outcome scalar, fast;
  uint32_t sets = 0;
  memset(&scalar, 0, sizeof scalar);
  run(*options, TKT_KERNELS_SCALAR, &scalar);
  *digest = digest_of(&scalar, *digest);
  for (uint32_t kernels = TKT_KERNELS_AVX2; kernels <= TKT_KERNELS_NEON; ++kernels) {
    if (!is_available(*options, kernels)) continue;
    memset(&fast, 0, sizeof fast);
    run(*options, kernels, &fast);
    ++sets;
    if (memcmp(&scalar, &fast, sizeof scalar) == 0) continue;
    fprintf(stderr, "kernels %u differ from scalar: optimizer %u, momentum %g, batch %u; in losses %d, values %d\n",
            kernels, options->optimizer, (double)options->momentum, options->batch,
            memcmp(scalar.losses, fast.losses, sizeof scalar.losses) != 0,
            memcmp(scalar.values, fast.values, sizeof scalar.values) != 0);
    exit(1);
  }
  return sets;
}

int main(void) {
  static const uint32_t batches[] = {1, 7, 16, 32, 33, 48, 100};
  uint32_t compared = 0, digest = 0;
  write_artifact(&g_ticket, (uint8_t *)g_file, INPUTS, HIDDEN, CLASSES, 35);
  for (int i = 0; i < SAMPLES * INPUTS; ++i) g_samples[i] = random_value(&g_ticket);
  for (int s = 0; s < SAMPLES; ++s) g_labels[s] = (int32_t)(next_random(&g_ticket) % CLASSES);
  tkt_options options;
  options.struct_bytes = sizeof options;
  if (tkt_default_options(g_file, g_ticket.size, &options, NULL) != TKT_OK) return 1;
  for (int variant = 0; variant < 4; ++variant) {
    options.optimizer = variant < 3 ? TKT_SGD : TKT_ADAM;
    options.momentum = variant == 0 ? 0.0f : 0.9f;
    options.weight_decay = variant >= 2 ? 1e-3f : 0.0f;
    options.learning_rate = variant < 3 ? 0.02f : 1e-3f;
    for (size_t b = 0; b < sizeof batches / sizeof *batches; ++b) {
      options.batch = batches[b];
      compared += compare_all(&options, &digest);
    }
  }
  printf("kernels_test: %u comparisons with the scalar kernels, all bits equal; digest %08x\n", compared, digest);
  if (digest == DIGEST) return 0;
  fprintf(stderr, "kernels_test: the digest is not %08x: the arithmetic is not that of FORMAT.md any more\n", DIGEST);
  return 1;
}
