/* Every kernel set that this processor has gives the bits of the scalar one: losses, values, gradients and predictions
 * of a few steps; every operator, every optimizer, every number of lanes, whole and partial groups, batches in parts.
 * A packed artifact gives those of the plain one.
 */
#include <stdio.h>
#include <stdlib.h>

#include "artifact_writer.h"
#include "ticket_runtime.h"

/* Of all outcomes, on every target. It changes only together with the section Arithmetic of FORMAT.md, or with what is run
 * here. */
#define DIGEST 0x93e589d5u

/* No more, for emulators are slow: ten steps hold two of half a batch, and EVALUATED samples are whole
 * and partial groups of every number of lanes. */
enum { INPUTS = 70, HIDDEN = 41, CLASSES = 5, STEPS = 10, SAMPLES = 150, EVALUATED = 50, MAX_INPUTS = 256 };

static Ticket g_ticket;
static uint64_t g_bytes[MAX_FILE / 8];
static size_t g_size;
static tkt_info g_info;
static float g_samples[SAMPLES * MAX_INPUTS];
static union {
  int32_t labels[SAMPLES];
  float floats[SAMPLES * CLASSES];
} g_targets;

typedef struct Outcome {
  float losses[STEPS], values[MAX_VALUES], gradients[MAX_VALUES], outputs[EVALUATED * CLASSES];
  double loss_sum;
  uint32_t correct;
} Outcome;

static void require(int condition, const char *what, const tkt_error *error) {
  if (condition) return;
  fprintf(stderr, "kernels_test: %s [%s]\n", what, error ? error->text : "");
  exit(1);
}

static int is_available(tkt_options options, uint32_t kernels) {
  tkt_trainer *trainer;
  uint64_t bytes = 0;
  options.kernels = kernels;
  tkt_arena_bytes(g_bytes, g_size, &options, &bytes, NULL);
  void *arena = malloc(bytes);
  tkt_status status = tkt_open(g_bytes, g_size, &options, arena, bytes, &trainer, NULL);
  free(arena);
  return status == TKT_OK;
}

static const void *targets_at(uint32_t sample) {
  if (g_info.loss == TKT_CROSS_ENTROPY) return g_targets.labels + sample;
  return g_targets.floats + sample * g_info.class_count;
}

static void run(tkt_options options, uint32_t kernels, Outcome *outcome) {
  tkt_error error = {""};
  tkt_trainer *t;
  uint64_t bytes = 0;
  const uint32_t batch = options.batch;
  options.kernels = kernels;
  options.threads = kernels == TKT_KERNELS_SCALAR ? 1 : 3; /* what is compared with one thread is computed by three */
  require(tkt_arena_bytes(g_bytes, g_size, &options, &bytes, &error) == TKT_OK, "arena", &error);
  void *arena = malloc(bytes);
  memset(arena, 0xFF, bytes);
  require(tkt_open(g_bytes, g_size, &options, arena, bytes, &t, &error) == TKT_OK, "open", &error);
  require(tkt_kernels_in_use(t) == kernels, "kernels in use", &error);
  for (uint32_t step = 0; step < STEPS; ++step) {
    uint32_t first = step * 13 % (SAMPLES - batch), count = step % 5 == 4 ? (batch + 1) / 2 : batch;
    const float *samples = g_samples + first * g_info.input_elements;
    tkt_status status = tkt_train_step(t, samples, targets_at(first), count, &outcome->losses[step], &error);
    require(status == TKT_OK, "step", &error);
  }
  memcpy(outcome->values, tkt_values(t), 4 * g_info.value_count);
  if (tkt_gradients(t)) memcpy(outcome->gradients, tkt_gradients(t), 4 * g_info.trained_count);
  require(tkt_predict(t, g_samples, EVALUATED, outcome->outputs, &error) == TKT_OK, "predict", &error);
  tkt_status status =
      tkt_evaluate(t, g_samples, targets_at(0), EVALUATED, &outcome->loss_sum, &outcome->correct, &error);
  require(status == TKT_OK, "evaluate", &error);
  tkt_close(t);
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

/* Samples and targets for the artifact in g_bytes, from one sequence of random numbers. */
static void begin(void) {
  uint32_t codes[1] = {0};
  tkt_error error = {""};
  g_info.struct_bytes = sizeof g_info;
  require(tkt_inspect(g_bytes, g_size, &g_info, &error) == TKT_OK, "inspect", &error);
  require(g_info.input_elements <= MAX_INPUTS && g_info.value_count <= MAX_VALUES && g_info.class_count <= CLASSES,
          "an artifact that is too large for the test", &error);
  tkt_operators(g_bytes, g_size, codes, 1, NULL);
  const int whole_numbers = strcmp(tkt_operator_name(codes[0]), "embedding") == 0;
  for (uint32_t i = 0; i < SAMPLES * g_info.input_elements; ++i) {
    g_samples[i] = whole_numbers ? (float)(next_random(&g_ticket) % 12) : random_value(&g_ticket);
  }
  for (uint32_t s = 0; s < SAMPLES; ++s) {
    if (g_info.loss == TKT_CROSS_ENTROPY) {
      g_targets.labels[s] = (int32_t)(next_random(&g_ticket) % g_info.class_count);
      continue;
    }
    for (uint32_t j = 0; j < g_info.class_count; ++j) {
      g_targets.floats[s * g_info.class_count + j] = (float)(next_random(&g_ticket) % 2);
    }
  }
}

static tkt_options defaults(void) {
  tkt_options options;
  options.struct_bytes = sizeof options;
  require(tkt_default_options(g_bytes, g_size, &options, NULL) == TKT_OK, "defaults", NULL);
  return options;
}

/* Every optimizer at every number of lanes, with whole and partial groups, in one piece and in parts. */
static uint32_t compare_optimizers(uint32_t *digest) {
  static const uint32_t batches[] = {1, 3, 7, 16, 32, 33, 100};
  uint32_t compared = 0;
  begin();
  for (int variant = 0; variant < 6; ++variant) {
    tkt_options options = defaults();
    options.optimizer = variant < 4 ? TKT_SGD : variant == 4 ? TKT_ADAM : TKT_ADAMW;
    options.momentum = variant == 0 ? 0.0f : 0.9f;
    options.nesterov = variant == 3;
    options.weight_decay = variant >= 2 ? 1e-3f : 0.0f;
    options.learning_rate = variant < 4 ? 0.02f : 1e-3f;
    for (size_t b = 0; b < sizeof batches / sizeof *batches; ++b) {
      options.batch = batches[b];
      options.micro_batch = variant == 1 ? (batches[b] + 2) / 3 : 0;
      compared += compare_all(&options, digest);
    }
  }
  return compared;
}

static void read_golden(const char *folder, const char *name) {
  char path[1024];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  FILE *file = fopen(path, "rb");
  require(file != NULL, path, NULL);
  g_size = fread(g_bytes, 1, sizeof g_bytes, file);
  fclose(file);
}

/* An artifact with many operators, by its own recipe. */
static uint32_t compare_file(const char *folder, const char *name, uint32_t *digest) {
  static const uint32_t batches[] = {1, 4, 8, 40};
  uint32_t compared = 0;
  read_golden(folder, name);
  begin();
  for (size_t b = 0; b < sizeof batches / sizeof *batches; ++b) {
    tkt_options options = defaults();
    options.batch = batches[b];
    compared += compare_all(&options, digest);
    options.half_activations = 1;
    compared += compare_all(&options, digest);
  }
  return compared;
}

/* The artifact at hand packed, for the same samples. */
static void compare_packed(const char *folder, const char *name) {
  static Outcome plain, packed;
  tkt_options options = defaults();
  run(options, TKT_KERNELS_SCALAR, &plain);
  read_golden(folder, name);
  run(options, TKT_KERNELS_SCALAR, &packed);
  require(memcmp(&plain, &packed, sizeof plain) == 0, "a packed artifact trains to other bits", NULL);
}

/* The argument is the folder of the golden files. */
int main(int count, char **arguments) {
  uint32_t digest = 0;
  require(count == 2, "give the folder tests/golden", NULL);
  write_artifact(&g_ticket, (uint8_t *)g_bytes, INPUTS, HIDDEN, CLASSES, 35);
  g_size = g_ticket.size;
  uint32_t compared = compare_optimizers(&digest);
  compared += compare_file(arguments[1], "operators.tkt", &digest);
  compare_packed(arguments[1], "packed.tkt");
  compared += compare_file(arguments[1], "sequences.tkt", &digest);
  printf("kernels_test: %u comparisons with the scalar kernels, all bits equal; digest %08x\n", compared, digest);
  if (digest == DIGEST) return 0;
  fprintf(stderr, "kernels_test: the digest is not %08x: the arithmetic is not that of FORMAT.md any more\n", DIGEST);
  return 1;
}
