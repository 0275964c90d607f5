/* Every function of ticket_runtime.h from plain C99, and every kind of error, on an artifact that this test writes by
 * itself. Files are handed over in memory of exactly their size, so that a sanitizer sees one byte too much.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "artifact_writer.h"
#include "ticket_runtime.h"

#define CHECK(condition)                                                                 \
  do {                                                                                   \
    if (!(condition)) {                                                                  \
      fprintf(stderr, "%s:%d: %s [%s]\n", __FILE__, __LINE__, #condition, g_error.text); \
      exit(1);                                                                           \
    }                                                                                    \
  } while (0)

enum { INPUTS = 6, HIDDEN = 4, CLASSES = 3, BATCH = 8, SAMPLES = 21 };

static tkt_error g_error;
static Ticket g_ticket;
static uint64_t g_file[MAX_FILE / 8];
static float g_samples[SAMPLES * INPUTS];
static int32_t g_labels[SAMPLES];

static const uint8_t *file(void) { return (const uint8_t *)g_file; }
static int mentions(const char *text) { return strstr(g_error.text, text) != NULL; }

static void prepare(void) {
  write_artifact(&g_ticket, (uint8_t *)g_file, INPUTS, HIDDEN, CLASSES, 40);
  for (int i = 0; i < SAMPLES * INPUTS; ++i) g_samples[i] = random_value(&g_ticket);
  for (int s = 0; s < SAMPLES; ++s) g_labels[s] = g_samples[s * INPUTS] > 0.3f ? 2 : g_samples[s * INPUTS + 1] > 0.0f;
}

static tkt_options defaults(void) {
  tkt_options options;
  options.struct_bytes = sizeof options;
  CHECK(tkt_default_options(file(), g_ticket.size, &options, &g_error) == TKT_OK);
  options.batch = BATCH;
  return options;
}

/* A trainer in memory of exactly the size it asks for, which begins at an address divisible by 8 and not by 16. */
typedef struct Held {
  uint8_t *memory;
  tkt_trainer *trainer;
} Held;

static uint64_t arena_bytes(const tkt_options *options) {
  uint64_t bytes = 0;
  CHECK(tkt_arena_bytes(file(), g_ticket.size, options, &bytes, &g_error) == TKT_OK);
  return bytes;
}

static Held open_with(const tkt_options *options, const void *artifact, size_t size) {
  Held held;
  uint64_t bytes = 0;
  CHECK(tkt_arena_bytes(artifact, size, options, &bytes, &g_error) == TKT_OK);
  held.memory = malloc(bytes + 8);
  CHECK(held.memory != NULL);
  memset(held.memory, 0xFF, bytes + 8);
  CHECK(tkt_open(artifact, size, options, held.memory + 8, bytes, &held.trainer, &g_error) == TKT_OK);
  return held;
}

static Held open_default(void) {
  tkt_options options = defaults();
  return open_with(&options, file(), g_ticket.size);
}

static uint8_t *saved(const tkt_trainer *trainer, size_t *size) {
  *size = (size_t)tkt_checkpoint_bytes(trainer);
  uint8_t *bytes = malloc(*size);
  CHECK(bytes != NULL && tkt_save(trainer, bytes, *size, &g_error) == TKT_OK);
  return bytes;
}

static float step(tkt_trainer *trainer, uint32_t first, uint32_t count) {
  float loss = -1.0f;
  CHECK(tkt_train_step(trainer, g_samples + first * INPUTS, g_labels + first, count, &loss, &g_error) == TKT_OK);
  return loss;
}

static void test_names(void) {
  CHECK(tkt_abi_version() == TKT_ABI_VERSION);
  CHECK(strcmp(tkt_status_name(TKT_OK), "OK") == 0);
  CHECK(strcmp(tkt_status_name(TKT_CORRUPT_ARTIFACT), "CorruptArtifact") == 0);
  CHECK(strcmp(tkt_status_name(TKT_INVALID_INPUT), "InvalidInput") == 0);
  CHECK(tkt_status_name(-1) != NULL && tkt_status_name(99) != NULL);
  CHECK(strcmp(tkt_operator_name(1), "linear") == 0 && strcmp(tkt_operator_name(4), "add") == 0);
  CHECK(tkt_operator_name(0) == NULL && tkt_operator_name(77) == NULL);
}

static void test_inspect(void) {
  tkt_info info;
  uint32_t codes[7] = {9, 9, 9, 9, 9, 9, 9};
  info.struct_bytes = sizeof info;
  CHECK(tkt_inspect(file(), g_ticket.size, &info, &g_error) == TKT_OK);
  CHECK(info.input_elements == INPUTS && info.input_rank == 2 && info.input_shape[1] == INPUTS / 2);
  CHECK(info.class_count == CLASSES && info.node_count == 6 && info.parameter_count == PARAM_COUNT);
  CHECK(info.value_count == g_ticket.value_count && info.has_trained == 0);
  CHECK(info.pruned_layer_live == g_ticket.nnz[0] + g_ticket.nnz[2]);
  CHECK(info.pruned_layer_weights == HIDDEN * INPUTS + HIDDEN * HIDDEN);
  CHECK(info.dense_count == info.pruned_layer_weights + HIDDEN + CLASSES * HIDDEN + CLASSES);
  CHECK(info.card_bytes == 15 && memcmp(info.card, "{\"task\"", 7) == 0 && info.ticket_hash[1] == 8);
  CHECK(tkt_operators(file(), g_ticket.size, codes, 6, &g_error) == TKT_OK);
  CHECK(codes[0] == 3 && codes[1] == 1 && codes[2] == 2 && codes[3] == 1 && codes[4] == 4 && codes[5] == 1);
  CHECK(codes[6] == 9);
  CHECK(tkt_operators(file(), g_ticket.size, NULL, 0, &g_error) == TKT_OK);
  CHECK(tkt_operators(file(), g_ticket.size, NULL, 1, &g_error) == TKT_INVALID_INPUT);
  info.struct_bytes = 4;
  CHECK(tkt_inspect(file(), g_ticket.size, &info, &g_error) == TKT_INVALID_INPUT && mentions("struct_bytes"));
  CHECK(tkt_inspect(file(), g_ticket.size, NULL, NULL) == TKT_INVALID_INPUT);
}

static void test_options(void) {
  tkt_options good = defaults(), bad;
  uint64_t bytes;
  CHECK(good.optimizer == TKT_SGD && good.learning_rate == 0.05f && good.momentum == 0.9f && good.seed == 0);
  CHECK(good.kernels == TKT_KERNELS_AUTO && good.start == TKT_START_INIT && good.budget_bytes == 0);
#define REFUSED(field, value, word)                                                           \
  bad = good;                                                                                 \
  bad.field = value;                                                                          \
  CHECK(tkt_arena_bytes(file(), g_ticket.size, &bad, &bytes, &g_error) == TKT_INVALID_INPUT); \
  CHECK(mentions(word))
  REFUSED(struct_bytes, 8, "struct_bytes");
  REFUSED(batch, 0, "batch is 0");
  REFUSED(batch, 65537, "batch is 65537");
  REFUSED(optimizer, 4, "optimizer is 4");
  REFUSED(kernels, 5, "kernels is 5");
  REFUSED(start, 2, "start is 2");
  REFUSED(start, TKT_START_TRAINED, "TRAINED");
  REFUSED(learning_rate, -0.5f, "learning_rate is -0.5");
  REFUSED(learning_rate, INFINITY, "learning_rate is infinity");
  REFUSED(momentum, 1.0f, "momentum is 1");
  REFUSED(momentum, NAN, "momentum is NaN");
  REFUSED(weight_decay, -1e-5f, "weight_decay is -1e-5");
  REFUSED(beta1, 1.0f, "beta1");
  REFUSED(beta2, -0.25f, "beta2");
  REFUSED(epsilon, 0.0f, "epsilon");
  REFUSED(nesterov, 2, "nesterov is 2");
  REFUSED(label_smoothing, 1.0f, "label_smoothing is 1");
  REFUSED(clip_norm, -1.0f, "clip_norm is -1");
  REFUSED(schedule, 4, "schedule is 4");
  REFUSED(schedule, TKT_SCHEDULE_STEP, "schedule_steps is 0");
  REFUSED(schedule_steps, 5, "schedule_steps is 5");
  REFUSED(schedule_factor, 1.5f, "schedule_factor is 1.5");
  REFUSED(store_gradients, 2, "store_gradients is 2");
  REFUSED(threads, 0, "threads is 0");
  REFUSED(threads, 65, "threads is 65, but must be 1 to");
  REFUSED(recompute, 2, "recompute is 2");
  REFUSED(half_activations, 2, "half_activations is 2");
#undef REFUSED
  CHECK(tkt_arena_bytes(file(), g_ticket.size, NULL, &bytes, &g_error) == TKT_INVALID_INPUT);
  CHECK(tkt_arena_bytes(file(), g_ticket.size, &good, NULL, &g_error) == TKT_INVALID_INPUT);
  CHECK(tkt_default_options(file(), g_ticket.size, NULL, &g_error) == TKT_INVALID_INPUT);
}

static void test_arena(void) {
  tkt_options options = defaults();
  tkt_trainer *trainer;
  tkt_memory memory;
  const uint64_t bytes = arena_bytes(&options);
  for (uint32_t kernels = TKT_KERNELS_AUTO; kernels <= TKT_KERNELS_NEON; ++kernels) {
    options.kernels = kernels;
    CHECK(arena_bytes(&options) == bytes);
  }
  options.kernels = TKT_KERNELS_AUTO;
  memory.struct_bytes = sizeof memory;
  CHECK(tkt_memory_plan(file(), g_ticket.size, &options, &memory, &g_error) == TKT_OK);
  CHECK(memory.total == bytes && memory.values == 4 * g_ticket.value_count && memory.gradients == memory.values);
  CHECK(memory.optimizer == memory.values);
  CHECK(memory.total ==
        memory.values + memory.gradients + memory.optimizer + memory.activations + memory.index + memory.bookkeeping);
  uint8_t *arena = malloc(bytes + 8);
  CHECK(tkt_open(file(), g_ticket.size, &options, arena, bytes - 1, &trainer, &g_error) == TKT_BUDGET_EXCEEDED);
  CHECK(tkt_open(file(), g_ticket.size, &options, arena + 4, bytes, &trainer, &g_error) == TKT_INVALID_INPUT);
  CHECK(tkt_open(file(), g_ticket.size, &options, NULL, bytes, &trainer, &g_error) == TKT_INVALID_INPUT);
  CHECK(tkt_open(file(), g_ticket.size, &options, arena, bytes, NULL, &g_error) == TKT_INVALID_INPUT);
  CHECK(tkt_open(file(), g_ticket.size, &options, arena, bytes, &trainer, &g_error) == TKT_OK);
  CHECK(tkt_open(file(), g_ticket.size, &options, arena + 8, bytes, &trainer, NULL) == TKT_OK);
  options.budget_bytes = bytes;
  CHECK(tkt_open(file(), g_ticket.size, &options, arena, bytes, &trainer, &g_error) == TKT_OK);
  options.budget_bytes = bytes - 1;
  CHECK(tkt_open(file(), g_ticket.size, &options, arena, bytes, &trainer, &g_error) == TKT_BUDGET_EXCEEDED);
  CHECK(mentions("budget"));
  options = defaults();
#if defined(__aarch64__)
  options.kernels = TKT_KERNELS_AVX512;
#else
  options.kernels = TKT_KERNELS_NEON;
#endif
  CHECK(tkt_open(file(), g_ticket.size, &options, arena, bytes, &trainer, &g_error) == TKT_INVALID_INPUT);
  free(arena);
}

/* The mean loss of `count` samples with the given values, in f64 and without the runtime. */
static double reference_loss(const double *values, uint32_t count) {
  static const double mean[2] = {0.5, -0.25}, inverse_std[2] = {2.0, 1.25};
  double total = 0;
  for (uint32_t s = 0; s < count; ++s) {
    double x[INPUTS], z[HIDDEN] = {0}, y[HIDDEN], sum[HIDDEN], out[CLASSES] = {0}, norm = 0;
    for (int i = 0; i < INPUTS; ++i) {
      int c = i / (INPUTS / 2);
      x[i] = ((double)g_samples[s * INPUTS + (uint32_t)i] - mean[c]) * inverse_std[c];
    }
    for (uint32_t k = 0; k < g_ticket.value_count; ++k) {
      const Entry *e = &g_ticket.entries[k];
      if (e->param < 2) z[e->row] += values[k] * (e->param == 0 ? x[e->col] : 1.0);
    }
    for (int i = 0; i < HIDDEN; ++i) sum[i] = y[i] = z[i] > 0 ? z[i] : 0;
    for (uint32_t k = 0; k < g_ticket.value_count; ++k) {
      const Entry *e = &g_ticket.entries[k];
      if (e->param == 2) sum[e->row] += values[k] * y[e->col];
    }
    for (uint32_t k = 0; k < g_ticket.value_count; ++k) {
      const Entry *e = &g_ticket.entries[k];
      if (e->param > 2) out[e->row] += values[k] * (e->param == 3 ? sum[e->col] : 1.0);
    }
    for (int j = 0; j < CLASSES; ++j) norm += exp(out[j]);
    total += log(norm) - out[g_labels[s]];
  }
  return total / count;
}

static void test_gradients(void) {
  Held held = open_default();
  static double values[MAX_VALUES];
  float loss;
  CHECK(tkt_compute_gradients(held.trainer, g_samples, g_labels, 7, &loss, &g_error) == TKT_OK);
  const float *found = tkt_gradients(held.trainer);
  for (uint32_t k = 0; k < g_ticket.value_count; ++k) {
    values[k] = (double)g_ticket.values[k];
    CHECK(tkt_values(held.trainer)[k] == g_ticket.values[k]);
  }
  CHECK(fabs(reference_loss(values, 7) - (double)loss) < 1e-5);
  for (uint32_t k = 0; k < g_ticket.value_count; ++k) {
    const double kept = values[k], width = 1e-5;
    values[k] = kept + width;
    double up = reference_loss(values, 7);
    values[k] = kept - width;
    double difference = (up - reference_loss(values, 7)) / (2 * width);
    values[k] = kept;
    CHECK(fabs(difference - (double)found[k]) < 1e-5);
  }
  free(held.memory);
}

static void test_training(void) {
  Held held = open_default();
  uint32_t indices[BATCH], count, correct_before, correct;
  double loss_before, loss;
  float probabilities[SAMPLES * CLASSES];
  tkt_progress progress;
  progress.struct_bytes = sizeof progress;
  CHECK(tkt_evaluate(held.trainer, g_samples, g_labels, SAMPLES, &loss_before, &correct_before, &g_error) == TKT_OK);
  for (int epoch = 0; epoch < 60; ++epoch) {
    int seen[SAMPLES] = {0};
    for (uint32_t drawn = 0; drawn < SAMPLES; drawn += count) {
      float x[BATCH * INPUTS];
      int32_t y[BATCH];
      CHECK(tkt_next_batch(held.trainer, SAMPLES, indices, &count, &g_error) == TKT_OK);
      CHECK(count == (SAMPLES - drawn < BATCH ? SAMPLES - drawn : BATCH));
      for (uint32_t i = 0; i < count; ++i) {
        CHECK(indices[i] < SAMPLES && seen[indices[i]]++ == 0);
        memcpy(x + i * INPUTS, g_samples + indices[i] * INPUTS, INPUTS * sizeof *x);
        y[i] = g_labels[indices[i]];
      }
      float batch_loss;
      CHECK(tkt_train_step(held.trainer, x, y, count, &batch_loss, &g_error) == TKT_OK);
    }
  }
  CHECK(tkt_get_progress(held.trainer, &progress, &g_error) == TKT_OK);
  CHECK(progress.step == 180 && progress.epoch == 60 && progress.position == 0);
  CHECK(tkt_evaluate(held.trainer, g_samples, g_labels, SAMPLES, &loss, &correct, &g_error) == TKT_OK);
  CHECK(loss < 0.5 * loss_before && correct > correct_before);
  CHECK(tkt_predict(held.trainer, g_samples, SAMPLES, probabilities, &g_error) == TKT_OK);
  double loss_of_probabilities = 0;
  for (int s = 0; s < SAMPLES; ++s) {
    float sum = 0;
    for (int j = 0; j < CLASSES; ++j) sum += probabilities[s * CLASSES + j];
    CHECK(fabsf(sum - 1.0f) < 1e-5f);
    loss_of_probabilities -= log((double)probabilities[s * CLASSES + g_labels[s]]);
  }
  CHECK(fabs(loss_of_probabilities - loss) < 1e-3);
  CHECK(tkt_reset(held.trainer, &g_error) == TKT_OK);
  CHECK(memcmp(tkt_values(held.trainer), g_ticket.values, 4 * g_ticket.value_count) == 0);
  CHECK(tkt_get_progress(held.trainer, &progress, &g_error) == TKT_OK && progress.step == 0 && progress.epoch == 0);
  free(held.memory);
}

/* After each of these the trainer is what it was. */
static void test_bad_input(void) {
  Held held = open_default();
  tkt_trainer *t = held.trainer;
  float x[BATCH * INPUTS], loss, probabilities[CLASSES];
  int32_t y[BATCH];
  double loss_sum;
  uint32_t n, indices[BATCH];
  size_t size, size_after;
  step(t, 0, BATCH);
  uint8_t *before = saved(t, &size);
  memcpy(x, g_samples, sizeof x);
  memcpy(y, g_labels, sizeof y);
#define REFUSED(call, status, word) \
  CHECK((call) == (status));        \
  CHECK(mentions(word))
  REFUSED(tkt_train_step(NULL, x, y, 1, &loss, &g_error), TKT_INVALID_INPUT, "trainer is NULL");
  REFUSED(tkt_train_step(t, NULL, y, 1, &loss, &g_error), TKT_INVALID_INPUT, "samples is NULL");
  REFUSED(tkt_train_step(t, x, NULL, 1, &loss, &g_error), TKT_INVALID_INPUT, "targets is NULL");
  REFUSED(tkt_train_step(t, x, y, 1, NULL, &g_error), TKT_INVALID_INPUT, "loss is NULL");
  REFUSED(tkt_train_step(t, x, y, 0, &loss, &g_error), TKT_INVALID_INPUT, "count is 0");
  REFUSED(tkt_train_step(t, x, y, BATCH + 1, &loss, &g_error), TKT_INVALID_INPUT, "count is 9");
  REFUSED(tkt_set_learning_rate(NULL, 0.1f, &g_error), TKT_INVALID_INPUT, "trainer is NULL");
  REFUSED(tkt_set_learning_rate(t, -0.1f, &g_error), TKT_INVALID_INPUT, "learning_rate is -0.1");
  REFUSED(tkt_set_learning_rate(t, NAN, &g_error), TKT_INVALID_INPUT, "learning_rate is NaN");
  y[3] = CLASSES;
  REFUSED(tkt_train_step(t, x, y, BATCH, &loss, &g_error), TKT_INVALID_INPUT, "labels[3] is 3");
  REFUSED(tkt_evaluate(t, x, y, BATCH, &loss_sum, &n, &g_error), TKT_INVALID_INPUT, "labels[3] is 3");
  y[3] = -1;
  REFUSED(tkt_compute_gradients(t, x, y, BATCH, &loss, &g_error), TKT_INVALID_INPUT, "labels[3] is -1");
  y[3] = 0;
  x[2 * INPUTS + 5] = NAN;
  REFUSED(tkt_train_step(t, x, y, BATCH, &loss, &g_error), TKT_INVALID_INPUT, "samples[2] has NaN at element 5");
  REFUSED(tkt_evaluate(t, x, y, BATCH, &loss_sum, &n, &g_error), TKT_INVALID_INPUT, "samples[2]");
  x[2 * INPUTS + 5] = -INFINITY;
  REFUSED(tkt_predict(t, x + 2 * INPUTS, 1, probabilities, &g_error), TKT_INVALID_INPUT, "has -infinity");
  x[2 * INPUTS + 5] = 3e38f;
  REFUSED(tkt_train_step(t, x, y, BATCH, &loss, &g_error), TKT_NON_FINITE_LOSS, "normalisation");
  REFUSED(tkt_predict(t, x, 0, probabilities, &g_error), TKT_INVALID_INPUT, "count is 0");
  REFUSED(tkt_predict(t, x, 1, NULL, &g_error), TKT_INVALID_INPUT, "outputs");
  REFUSED(tkt_evaluate(t, x, y, 1, NULL, &n, &g_error), TKT_INVALID_INPUT, "loss_sum");
  REFUSED(tkt_evaluate(t, x, y, 1, &loss_sum, NULL, &g_error), TKT_INVALID_INPUT, "correct");
  REFUSED(tkt_next_batch(t, 0, indices, &n, &g_error), TKT_INVALID_INPUT, "sample_count");
  REFUSED(tkt_next_batch(t, 5, NULL, &n, &g_error), TKT_INVALID_INPUT, "indices");
  REFUSED(tkt_next_batch(t, 5, indices, NULL, &g_error), TKT_INVALID_INPUT, "count");
  REFUSED(tkt_reset(NULL, &g_error), TKT_INVALID_INPUT, "trainer");
  REFUSED(tkt_get_progress(t, NULL, &g_error), TKT_INVALID_INPUT, "progress");
  REFUSED(tkt_save(t, NULL, 0, &g_error), TKT_INVALID_INPUT, "checkpoint");
  REFUSED(tkt_save(t, x, 3, &g_error), TKT_INVALID_INPUT, "capacity is 3");
  REFUSED(tkt_export(t, x, 3, &g_error), TKT_INVALID_INPUT, "capacity is 3");
  REFUSED(tkt_restore(t, NULL, 0, &g_error), TKT_INVALID_INPUT, "checkpoint");
  REFUSED(tkt_inspect(NULL, 0, &(tkt_info){.struct_bytes = sizeof(tkt_info)}, &g_error), TKT_INVALID_INPUT, "artifact");
#undef REFUSED
  CHECK(tkt_values(NULL) == NULL && tkt_gradients(NULL) == NULL && tkt_kernels_in_use(NULL) == TKT_KERNELS_AUTO);
  CHECK(tkt_checkpoint_bytes(NULL) == 0 && tkt_export_bytes(NULL) == 0 && tkt_kernels_in_use(t) != TKT_KERNELS_AUTO);
  CHECK(tkt_train_step(t, g_samples, y, 0, &loss, NULL) == TKT_INVALID_INPUT);
  uint8_t *after = saved(t, &size_after);
  CHECK(size == size_after && memcmp(before, after, size) == 0);
  free(before);
  free(after);
  free(held.memory);
}

static void test_divergence(void) {
  tkt_options options = defaults();
  options.learning_rate = 1e30f;
  Held held = open_with(&options, file(), g_ticket.size);
  static float values[MAX_VALUES];
  float loss;
  size_t size;
  tkt_status status = TKT_OK;
  for (int i = 0; i < 20 && status == TKT_OK; ++i) {
    memcpy(values, tkt_values(held.trainer), 4 * g_ticket.value_count);
    status = tkt_train_step(held.trainer, g_samples, g_labels, BATCH, &loss, &g_error);
  }
  CHECK(status == TKT_NON_FINITE_LOSS && mentions("not touched"));
  CHECK(memcmp(values, tkt_values(held.trainer), 4 * g_ticket.value_count) == 0);
  free(saved(held.trainer, &size));
  free(held.memory);
}

static tkt_status inspect_copy(const uint8_t *bytes, size_t size) {
  tkt_info info;
  info.struct_bytes = sizeof info;
  uint8_t *copy = malloc(size + (size == 0));
  memcpy(copy, bytes, size);
  tkt_status status = tkt_inspect(copy, size, &info, &g_error);
  free(copy);
  return status;
}

static void test_damaged_artifact(void) {
  uint8_t *bytes = (uint8_t *)g_file;
  for (size_t size = 0; size < g_ticket.size; ++size) CHECK(inspect_copy(bytes, size) == TKT_CORRUPT_ARTIFACT);
  CHECK(inspect_copy(bytes, g_ticket.size + 1) == TKT_CORRUPT_ARTIFACT);
  for (size_t bit = 0; bit < 8 * g_ticket.size; ++bit) {
    bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    CHECK(inspect_copy(bytes, g_ticket.size) != TKT_OK);
    bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
  }
  CHECK(inspect_copy(bytes, g_ticket.size) == TKT_OK);
}

/* Any 32-bit word of the file set to a telling value, with the checksums right: accepted or refused, but never a crash. */
static void test_hostile_artifact(void) {
  static const uint32_t values[] = {0, 1, 2, 5, 0x7F, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFC, 0xFFFFFFFF};
  uint8_t *copy = malloc(g_ticket.size);
  for (size_t at = 8; at + 4 <= g_ticket.size; at += 4) {
    for (size_t v = 0; v < sizeof values / sizeof *values; ++v) {
      memcpy(copy, file(), g_ticket.size);
      set_u32(copy + at, values[v]);
      if (get_u32(copy + 16) != 7 || (at >= 64 && at < 64 + 16 * 7)) {
        set_u32(copy + 20, 0);
        set_u32(copy + 20, crc_of(copy, 64 + 16 * 7));
      } else {
        seal(copy);
      }
      tkt_status status = inspect_copy(copy, g_ticket.size);
      if (status != TKT_OK) continue;
      tkt_options options;
      options.struct_bytes = sizeof options;
      CHECK(tkt_default_options(copy, g_ticket.size, &options, &g_error) == TKT_OK);
      options.batch = 3;
      Held held = open_with(&options, copy, g_ticket.size);
      float loss;
      tkt_train_step(held.trainer, g_samples, g_labels, 3, &loss, &g_error);
      free(held.memory);
    }
  }
  free(copy);
}

static size_t section_offset(uint32_t kind) { return get_u32(file() + 64 + 16 * (kind - 1) + 4); }

typedef struct Patch {
  uint32_t section, offset, value;
  tkt_status status;
  const char *word;
} Patch;

static void test_malformed_artifact(void) {
  const uint32_t nodes = 16 + 20 * 7;
  const Patch patches[] = {
      {0, 8, 2, TKT_INCOMPATIBLE_ARTIFACT, "version 2"},
      {0, 64 + 16 * 6, 14, TKT_INCOMPATIBLE_ARTIFACT, "kind 14"},
      {0, 16, 0, TKT_CORRUPT_ARTIFACT, "sections"},
      {0, 56, 1, TKT_CORRUPT_ARTIFACT, "header"},
      {SECTION_RECIPE, 0, 4, TKT_UNSUPPORTED_OP, "optimizer 4"},
      {SECTION_RECIPE, 4, 0, TKT_CORRUPT_ARTIFACT, "batch is 0"},
      {SECTION_RECIPE, 12, 0x3F800000, TKT_CORRUPT_ARTIFACT, "momentum is 1"},
      {SECTION_INPUT, 0, 5, TKT_CORRUPT_ARTIFACT, "INPUT"},
      {SECTION_INPUT, 24, 0x7FC00000, TKT_CORRUPT_ARTIFACT, "not finite"},
      {SECTION_INPUT, 32, 0, TKT_CORRUPT_ARTIFACT, "inverse_std"},
      {SECTION_GRAPH, 8, 4, TKT_UNSUPPORTED_OP, "loss 4"},
      {SECTION_GRAPH, nodes, 77 | 1u << 16, TKT_UNSUPPORTED_OP, "operator 77"},
      {SECTION_GRAPH, nodes + 8, 1, TKT_CORRUPT_ARTIFACT, "written later"},
      {SECTION_PARAMS, 8, 6, TKT_CORRUPT_ARTIFACT, "encoding 6"},
      {SECTION_PARAMS, 8, 3, TKT_CORRUPT_ARTIFACT, "not blocks of 4"},
      {SECTION_PARAMS, 8 + 16, 4, TKT_CORRUPT_ARTIFACT, "PATTERN"},
      {SECTION_PATTERN, 0, 1, TKT_CORRUPT_ARTIFACT, "order"},
      {SECTION_INIT, 0, 0x7F800000, TKT_CORRUPT_ARTIFACT, "INIT"},
  };
  for (size_t i = 0; i < sizeof patches / sizeof *patches; ++i) {
    const Patch *p = &patches[i];
    uint8_t *copy = malloc(g_ticket.size);
    memcpy(copy, file(), g_ticket.size);
    set_u32(copy + (p->section ? section_offset(p->section) : 0) + p->offset, p->value);
    seal(copy);
    CHECK(inspect_copy(copy, g_ticket.size) == p->status);
    CHECK(mentions(p->word));
    free(copy);
  }
}

static void test_checkpoint(void) {
  Held whole = open_default(), again = open_default();
  tkt_options adam = defaults();
  adam.optimizer = TKT_ADAM;
  Held other = open_with(&adam, file(), g_ticket.size);
  size_t size, same;
  step(whole.trainer, 0, BATCH);
  uint8_t *bytes = saved(whole.trainer, &size);
  CHECK(tkt_restore(again.trainer, bytes, size, &g_error) == TKT_OK);
  uint8_t *copy = saved(again.trainer, &same);
  CHECK(same == size && memcmp(copy, bytes, size) == 0);
  for (int i = 0; i < 5; ++i) CHECK(step(whole.trainer, BATCH, BATCH) == step(again.trainer, BATCH, BATCH));
  CHECK(memcmp(tkt_values(whole.trainer), tkt_values(again.trainer), 4 * g_ticket.value_count) == 0);
  CHECK(tkt_restore(other.trainer, bytes, size, &g_error) == TKT_INVALID_INPUT && mentions("optimizer 1"));
  CHECK(tkt_restore(again.trainer, file(), g_ticket.size, &g_error) == TKT_CORRUPT_CHECKPOINT);
  for (size_t part = 0; part < size; ++part) {
    uint8_t *cut = malloc(part + (part == 0));
    memcpy(cut, bytes, part);
    CHECK(tkt_restore(again.trainer, cut, part, &g_error) == TKT_CORRUPT_CHECKPOINT);
    free(cut);
  }
  for (size_t bit = 0; bit < 8 * size; ++bit) {
    copy[bit / 8] ^= (uint8_t)(1 << bit % 8);
    CHECK(tkt_restore(again.trainer, copy, size, &g_error) == TKT_CORRUPT_CHECKPOINT);
    copy[bit / 8] ^= (uint8_t)(1 << bit % 8);
  }
  CHECK(memcmp(tkt_values(whole.trainer), tkt_values(again.trainer), 4 * g_ticket.value_count) == 0);
  copy[24] ^= 1; /* the ticket it says it is from */
  seal(copy);
  CHECK(tkt_restore(again.trainer, copy, size, &g_error) == TKT_CORRUPT_CHECKPOINT);
  CHECK(mentions("00080f16") && mentions("01080f16"));
  free(copy);
  free(bytes);
  free(whole.memory);
  free(again.memory);
  free(other.memory);
}

static void test_export(void) {
  Held held = open_default();
  for (int i = 0; i < 9; ++i) step(held.trainer, 0, BATCH);
  size_t size = (size_t)tkt_export_bytes(held.trainer);
  uint8_t *artifact = malloc(size);
  CHECK(tkt_export(held.trainer, artifact, size - 1, &g_error) == TKT_INVALID_INPUT);
  CHECK(tkt_export(held.trainer, artifact, size, &g_error) == TKT_OK);
  CHECK(inspect_copy(artifact, size) == TKT_OK);
  tkt_options options = defaults();
  options.start = TKT_START_TRAINED;
  Held trained = open_with(&options, artifact, size);
  CHECK(memcmp(tkt_values(trained.trainer), tkt_values(held.trainer), 4 * g_ticket.value_count) == 0);
  uint8_t *again = malloc(size);
  CHECK(tkt_export_bytes(trained.trainer) == size);
  CHECK(tkt_export(trained.trainer, again, size, &g_error) == TKT_OK && memcmp(again, artifact, size) == 0);
  options.start = TKT_START_INIT;
  Held fresh = open_with(&options, artifact, size);
  CHECK(memcmp(tkt_values(fresh.trainer), g_ticket.values, 4 * g_ticket.value_count) == 0);
  free(again);
  free(held.memory);
  free(trained.memory);
  free(fresh.memory);
  free(artifact);
}

static void test_sample_order(void) {
  tkt_options options = defaults();
  options.batch = 5;
  options.seed = 7;
  for (uint32_t n = 1; n < 70; ++n) {
    Held held = open_with(&options, file(), g_ticket.size);
    for (int epoch = 0; epoch < 3; ++epoch) {
      uint8_t seen[70] = {0};
      uint32_t indices[5], count;
      for (uint32_t drawn = 0; drawn < n; drawn += count) {
        CHECK(tkt_next_batch(held.trainer, n, indices, &count, &g_error) == TKT_OK && count >= 1);
        for (uint32_t i = 0; i < count; ++i) CHECK(indices[i] < n && seen[indices[i]]++ == 0);
      }
    }
    free(held.memory);
  }
}

int main(void) {
  prepare();
  test_names();
  test_inspect();
  test_options();
  test_arena();
  test_gradients();
  test_training();
  test_bad_input();
  test_divergence();
  test_damaged_artifact();
  test_hostile_artifact();
  test_malformed_artifact();
  test_checkpoint();
  test_export();
  test_sample_order();
  puts("c_api_test: every check passed");
  return 0;
}
