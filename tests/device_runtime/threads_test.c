/* Trainers on several threads over one artifact share nothing that is written, and those of one trainer nothing at the same
 * time: ThreadSanitizer watches, and every run gets the bits of a run alone by one thread. Half of the threads train with
 * other options than the rest.
 */
#define _POSIX_C_SOURCE 200809L
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "artifact_writer.h"
#include "ticket_runtime.h"

enum { INPUTS = 24, HIDDEN = 20, CLASSES = 4, SAMPLES = 50, BATCH = 20, STEPS = 12, THREADS = 4 };

static Ticket g_ticket;
static uint64_t g_file[MAX_FILE / 8];
static float g_samples[SAMPLES * INPUTS];
static int32_t g_labels[SAMPLES];
static pthread_barrier_t g_start;

typedef struct Run {
  uint32_t optimizer, kernels, threads;
  int waits; /* for the other threads */
  float losses[STEPS], probabilities[SAMPLES * CLASSES], values[MAX_VALUES];
  double loss_sum;
  uint32_t correct;
} Run;

static void require(tkt_status status, const char *what, const tkt_error *error) {
  if (status == TKT_OK) return;
  fprintf(stderr, "threads_test: %s: %s\n", what, error->text);
  exit(1);
}

static void train(Run *run, tkt_trainer *t) {
  tkt_error error;
  for (uint32_t step = 0; step < STEPS; ++step) {
    uint32_t indices[BATCH], count;
    float x[BATCH * INPUTS];
    int32_t y[BATCH];
    require(tkt_next_batch(t, SAMPLES, indices, &count, &error), "next_batch", &error);
    for (uint32_t i = 0; i < count; ++i) {
      memcpy(x + i * INPUTS, g_samples + indices[i] * INPUTS, INPUTS * sizeof *x);
      y[i] = g_labels[indices[i]];
    }
    require(tkt_train_step(t, x, y, count, &run->losses[step], &error), "train_step", &error);
  }
}

/* Every call that a thread of an app makes. */
static void *work(void *argument) {
  Run *run = argument;
  tkt_error error;
  tkt_options options;
  tkt_info info;
  tkt_trainer *t;
  uint64_t bytes = 0;
  options.struct_bytes = sizeof options;
  info.struct_bytes = sizeof info;
  if (run->waits) pthread_barrier_wait(&g_start);
  require(tkt_inspect(g_file, g_ticket.size, &info, &error), "inspect", &error);
  require(tkt_default_options(g_file, g_ticket.size, &options, &error), "default_options", &error);
  options.batch = BATCH;
  options.optimizer = run->optimizer;
  options.kernels = run->kernels;
  options.threads = run->threads;
  options.momentum = 0;
  require(tkt_arena_bytes(g_file, g_ticket.size, &options, &bytes, &error), "arena_bytes", &error);
  void *arena = malloc(bytes);
  require(tkt_open(g_file, g_ticket.size, &options, arena, bytes, &t, &error), "open", &error);
  train(run, t);
  void *checkpoint = malloc(tkt_checkpoint_bytes(t)), *exported = malloc(tkt_export_bytes(t));
  require(tkt_save(t, checkpoint, tkt_checkpoint_bytes(t), &error), "save", &error);
  require(tkt_export(t, exported, tkt_export_bytes(t), &error), "export", &error);
  require(tkt_reset(t, &error), "reset", &error);
  require(tkt_restore(t, checkpoint, tkt_checkpoint_bytes(t), &error), "restore", &error);
  require(tkt_evaluate(t, g_samples, g_labels, SAMPLES, &run->loss_sum, &run->correct, &error), "evaluate", &error);
  require(tkt_predict(t, g_samples, SAMPLES, run->probabilities, &error), "predict", &error);
  require(tkt_train_step(t, g_samples, g_labels, 600, NULL, &error) == TKT_INVALID_INPUT ? TKT_OK : TKT_INVALID_INPUT,
          "a refused call", &error);
  memcpy(run->values, tkt_values(t), info.value_count * sizeof(float));
  tkt_close(t);
  free(exported);
  free(checkpoint);
  free(arena);
  return NULL;
}

static void prepare(Run *run, int number, uint32_t threads) {
  memset(run, 0, sizeof *run);
  run->threads = threads;
  run->optimizer = number % 2 == 0 ? TKT_SGD : TKT_ADAM;
  run->kernels = number < THREADS / 2 ? TKT_KERNELS_AUTO : TKT_KERNELS_SCALAR;
}

int main(void) {
  static Run alone[THREADS], together[THREADS];
  pthread_t threads[THREADS];
  write_artifact(&g_ticket, (uint8_t *)g_file, INPUTS, HIDDEN, CLASSES, 40);
  for (int i = 0; i < SAMPLES * INPUTS; ++i) g_samples[i] = random_value(&g_ticket);
  for (int s = 0; s < SAMPLES; ++s) g_labels[s] = (int32_t)(next_random(&g_ticket) % CLASSES);
  pthread_barrier_init(&g_start, NULL, THREADS);
  for (int i = 0; i < THREADS; ++i) {
    prepare(&together[i], i, 1 + (uint32_t)i);
    together[i].waits = 1;
    if (pthread_create(&threads[i], NULL, work, &together[i]) != 0) return 1;
  }
  for (int i = 0; i < THREADS; ++i) pthread_join(threads[i], NULL);
  for (int i = 0; i < THREADS; ++i) {
    prepare(&alone[i], i, 1);
    work(&alone[i]);
    together[i].waits = 0;
    together[i].threads = 1;
    if (memcmp(&alone[i], &together[i], sizeof alone[i]) != 0) {
      fprintf(stderr, "threads_test: thread %d has other bits than a run alone\n", i);
      return 1;
    }
  }
  pthread_barrier_destroy(&g_start);
  return 0;
}
