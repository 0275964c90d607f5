/* The whole C interface of the Pocket Ticket device runtime: train, evaluate and predict with one sparse network.
 *
 * Design goals: a training step whose time and memory fall with density; one caller-supplied arena, sized exactly
 * beforehand; the same bits on every rerun. Non-goals: files, sockets, logging, allocation, global state. The one thing taken
 * from the system are threads where `threads` > 1 asks for them, whose stacks are not in the arena.
 *
 * Layout of data: samples are float32, row-major `(count, input_elements)`, in the raw units of the training data (the
 * artifact carries the normalisation and the runtime applies it); for an embedding they are whole numbers. Targets are
 * int32 labels in [0, class_count) for cross-entropy, else float32 `(count, class_count)`.
 * Ownership: the artifact and the arena belong to the caller and must outlive the trainer; both 8-byte aligned at least.
 * Thread-safety: one trainer belongs to one thread at a time; different trainers share nothing (an artifact is only read).
 * Errors: every call returns a tkt_status; `error` may be NULL, else its text names the thing, the value and the remedy.
 * After an error the trainer is as it was before the call (with one exception, at store_gradients).
 * The format of artifacts and checkpoints: export/FORMAT.md.
 */
#ifndef TICKET_RUNTIME_H
#define TICKET_RUNTIME_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(_WIN32)
#define TKT_API __declspec(dllexport)
#else
#define TKT_API __attribute__((visibility("default")))
#endif

#define TKT_ABI_VERSION 3u
#define TKT_MAX_RANK 4

typedef enum tkt_status {
  TKT_OK = 0,
  TKT_CORRUPT_ARTIFACT = 1, /* not an artifact, cut short, or a checksum or an invariant of FORMAT.md does not hold */
  TKT_INCOMPATIBLE_ARTIFACT = 2, /* a version or a section this runtime does not know */
  TKT_UNSUPPORTED_OP = 3,        /* an operator, loss or optimizer this runtime does not know */
  TKT_CORRUPT_CHECKPOINT = 4,    /* not a checkpoint, cut short, a checksum fails, or made from another ticket */
  TKT_BUDGET_EXCEEDED = 5,       /* the arena needed is larger than budget_bytes, or than the arena given */
  TKT_NON_FINITE_LOSS = 6,       /* the loss is NaN or infinite; the weights were not touched */
  TKT_INVALID_INPUT = 7          /* NULL, count 0 or too large, label out of range, NaN in the samples, bad option */
} tkt_status;

typedef struct tkt_error {
  char text[256]; /* one line, NUL-terminated */
} tkt_error;

typedef enum tkt_optimizer { TKT_SGD = 1, TKT_ADAM = 2, TKT_ADAMW = 3 } tkt_optimizer;

/* The learning rate of update t: first it rises over warmup_steps, then, with n = schedule_steps and f = schedule_factor,
 * it stays; is multiplied by f every n updates; or falls to f times itself within n along a cosine or a line. */
typedef enum tkt_schedule {
  TKT_SCHEDULE_CONSTANT = 0,
  TKT_SCHEDULE_STEP = 1,
  TKT_SCHEDULE_COSINE = 2,
  TKT_SCHEDULE_LINEAR = 3
} tkt_schedule;

typedef enum tkt_loss { TKT_CROSS_ENTROPY = 1, TKT_MEAN_SQUARED_ERROR = 2, TKT_BINARY_CROSS_ENTROPY = 3 } tkt_loss;

/* Which build of the kernels runs. All of them give the same bits; SCALAR is the reference. */
typedef enum tkt_kernels {
  TKT_KERNELS_AUTO = 0,
  TKT_KERNELS_SCALAR = 1,
  TKT_KERNELS_AVX2 = 2,
  TKT_KERNELS_AVX512 = 3,
  TKT_KERNELS_NEON = 4
} tkt_kernels;

/* What tkt_draw draws from: `a` itself, with b = 0; evenly from a to b; normal with mean a and standard deviation b. In every
 * kind |a| + 8 b is finite. */
typedef enum tkt_distribution { TKT_CONSTANT = 0, TKT_UNIFORM = 1, TKT_NORMAL = 2 } tkt_distribution;

/* Which values a trainer starts from and resets to. */
typedef enum tkt_start { TKT_START_INIT = 0, TKT_START_TRAINED = 1 } tkt_start;

typedef struct tkt_options {
  uint32_t struct_bytes; /* sizeof(tkt_options) of the caller */
  uint32_t batch;        /* samples a step, 1..65536 */
  uint32_t optimizer;    /* tkt_optimizer */
  uint32_t kernels;      /* tkt_kernels */
  uint32_t start;        /* tkt_start */
  float learning_rate;   /* finite, >= 0 */
  float momentum;        /* SGD, in [0, 1); 0 stores no velocity */
  float weight_decay;    /* finite, >= 0; L2, added to the gradient as PyTorch does; AdamW: decoupled */
  float beta1, beta2;    /* Adam, AdamW, in [0, 1) */
  float epsilon;         /* likewise, > 0 */
  uint32_t nesterov;     /* SGD with momentum: 0 or 1 */
  float label_smoothing; /* cross-entropy, in [0, 1) */
  float clip_norm;       /* scale larger gradients down to this norm; 0 = never */
  uint32_t schedule;     /* tkt_schedule */
  uint32_t warmup_steps, schedule_steps;
  float schedule_factor; /* in [0, 1] */
  uint32_t micro_batch;  /* samples computed at a time, their gradients added up; 0 = the whole batch, or what the
                               budget allows. Batch normalisation normalises each such part by itself. */
  uint32_t
      store_gradients; /* 0: plain SGD without clipping, of whole batches, updates inside the backward pass and keeps
                               no gradients; then a gradient that overflows is left out of the update, which goes on with
                               the others before it is reported. 1: gradients are kept, and an error changes nothing. */
  uint32_t recompute;  /* 0: only where the budget demands it; 1: wherever it saves memory. Data that the backward
                                pass needs is dropped and computed again: the same bits, for at most a second forward. */
  uint32_t half_activations; /* 1: where that saves memory data that the backward pass needs is kept as half floats, at
                                most 65504 in size. The loss of given values stays the same bits, their gradients do
                                not. */
  uint32_t threads;          /* that share a step, the caller's among them, 1..64; results do not depend on it */
  uint64_t seed;             /* of the sample order, and of dropout */
  uint64_t
      budget_bytes; /* refuse a larger arena; 0 = no limit. Over it a batch is worked through in parts, and if that is
                            not enough nodes are recomputed; with batch normalisation the other way round. */
} tkt_options;

typedef struct tkt_info {
  uint32_t struct_bytes; /* sizeof(tkt_info) of the caller */
  uint32_t input_elements;
  uint32_t input_rank;
  uint32_t input_shape[TKT_MAX_RANK]; /* of one sample */
  uint32_t class_count;               /* elements of the output buffer */
  uint32_t loss;                      /* tkt_loss */
  uint32_t node_count;
  uint32_t parameter_count; /* tensors */
  uint32_t has_trained;     /* 1 if the artifact carries trained values */
  uint32_t card_bytes;
  uint64_t trained_count;        /* stored floats that have a gradient; the others are running statistics, at the end */
  uint64_t value_count;          /* stored floats: live weights, dense and masked parameters */
  uint64_t dense_count;          /* floats of the original network: unpruned, with the units that export left out */
  uint64_t pruned_layer_live;    /* live weights of the pruned parameters */
  uint64_t pruned_layer_weights; /* all weights of the original's pruned parameters; density = live / weights */
  const char *card;              /* UTF-8 JSON inside the artifact, not NUL-terminated */
  uint8_t ticket_hash[32];
} tkt_info;

/* The arena by part, in bytes; `total` is their sum and what tkt_arena_bytes gives. */
typedef struct tkt_memory {
  uint32_t struct_bytes;     /* sizeof(tkt_memory) of the caller */
  uint32_t micro_batch;      /* samples computed at a time */
  uint32_t recomputed_nodes; /* nodes of the graph computed twice; 0: nothing is recomputed */
  uint32_t half_buffers;     /* kept as half floats; 0: none */
  uint64_t values;           /* 4 * value_count */
  uint64_t gradients;        /* 4 * trained_count if they are kept; of the rows at work if not, or in parts, also */
  uint64_t optimizer;        /* momentum or the two moments of Adam */
  uint64_t activations;      /* and their gradients, one batch */
  uint64_t index;            /* an unpacked pattern, and the transposed ones that the backward pass walks */
  uint64_t bookkeeping;      /* the trainer, its plan, and alignment */
  uint64_t total;
} tkt_memory;

/* Where a trainer stands. */
typedef struct tkt_progress {
  uint32_t struct_bytes; /* sizeof(tkt_progress) of the caller */
  uint32_t position;     /* samples of the current epoch already drawn by tkt_next_batch */
  uint64_t step;         /* updates made */
  uint64_t epoch;        /* epochs completed by tkt_next_batch */
} tkt_progress;

typedef struct tkt_trainer tkt_trainer; /* lives inside the arena */

TKT_API uint32_t tkt_abi_version(void);
TKT_API const char *tkt_status_name(int32_t status);  /* "CorruptArtifact", ...; static storage */
TKT_API const char *tkt_operator_name(uint32_t code); /* "linear", ...; NULL for a code this runtime does not know */

/* Checks the whole artifact (every byte is covered by a checksum) and tells what is in it. What a packed pattern holds is
 * checked when it is unpacked, by tkt_open. */
TKT_API tkt_status tkt_inspect(const void *artifact, size_t artifact_bytes, tkt_info *info, tkt_error *error);

/* The operator codes of the nodes in order; writes min(capacity, node_count) of them. */
TKT_API tkt_status tkt_operators(const void *artifact, size_t artifact_bytes, uint32_t *codes, uint32_t capacity,
                                 tkt_error *error);

/* Fills every field from the recipe inside the artifact; seed 0, no budget, kernels AUTO, start INIT. */
TKT_API tkt_status tkt_default_options(const void *artifact, size_t artifact_bytes, tkt_options *options,
                                       tkt_error *error);

/* The exact arena a trainer with these options needs, before anything is allocated. Depends only on its arguments. */
TKT_API tkt_status tkt_arena_bytes(const void *artifact, size_t artifact_bytes, const tkt_options *options,
                                   uint64_t *arena_bytes, tkt_error *error);
TKT_API tkt_status tkt_memory_plan(const void *artifact, size_t artifact_bytes, const tkt_options *options,
                                   tkt_memory *memory, tkt_error *error);

/* Checks the artifact and lays a trainer into the arena; of a packed one the pattern is decoded into it. */
TKT_API tkt_status tkt_open(const void *artifact, size_t artifact_bytes, const tkt_options *options, void *arena,
                            size_t arena_bytes, tkt_trainer **trainer, tkt_error *error);

/* Ends the threads of a trainer opened with more than one; without, there is nothing to end and it need not be called. Before
 * the arena goes, and not while another call runs. NULL is nothing to close. What is called later works by itself. */
TKT_API void tkt_close(tkt_trainer *trainer);

/* Draws the indices of the next batch out of `sample_count` samples: a fresh permutation each epoch, a pure function of
 * (seed, epoch), so that it needs no memory and survives a restart. Writes `*count` <= batch indices; the last batch of
 * an epoch may be smaller. sample_count must not change within an epoch. */
TKT_API tkt_status tkt_next_batch(tkt_trainer *trainer, uint32_t sample_count, uint32_t *indices, uint32_t *count,
                                  tkt_error *error);

/* One update. 1 <= count <= batch. `*loss` is the mean loss of the recipe before the update. */
TKT_API tkt_status tkt_train_step(tkt_trainer *trainer, const float *samples, const void *targets, uint32_t count,
                                  float *loss, tkt_error *error);

/* The learning rate of all later steps, by which a schedule's factors go: for rates that no schedule of the options gives.
 * Finite, >= 0. Not in a checkpoint: after a restart set it again. */
TKT_API tkt_status tkt_set_learning_rate(tkt_trainer *trainer, float learning_rate, tkt_error *error);

/* Loss and gradients as in tkt_train_step, without an update; read them by tkt_gradients. Needs stored gradients. */
TKT_API tkt_status tkt_compute_gradients(tkt_trainer *trainer, const float *samples, const void *targets,
                                         uint32_t count, float *loss, tkt_error *error);

/* Any count; works through it in batches. `*loss_sum` over all samples, without smoothing and class weights; for losses of
 * floats each sample counts with the mean over its outputs. `*correct`: argmax hits (ties: lowest); samples whose outputs
 * are all on their target's side of 0.5 for binary cross-entropy; 0 for mean squared error. */
TKT_API tkt_status tkt_evaluate(tkt_trainer *trainer, const float *samples, const void *targets, uint32_t count,
                                double *loss_sum, uint32_t *correct, tkt_error *error);

/* Any count; writes `(count, class_count)` probabilities, row-major; for mean squared error the outputs themselves. */
TKT_API tkt_status tkt_predict(tkt_trainer *trainer, const float *samples, uint32_t count, float *outputs,
                               tkt_error *error);

/* value_count floats in the order of the artifact's parameters: live weights in CSR order, dense parameters row-major, and
 * so masked ones, with their pruned weights, which are 0. */
TKT_API const float *tkt_values(const tkt_trainer *trainer);
/* trained_count floats of the same; NULL if none are kept. */
TKT_API const float *tkt_gradients(const tkt_trainer *trainer);
TKT_API tkt_status tkt_get_progress(const tkt_trainer *trainer, tkt_progress *progress, tkt_error *error);
TKT_API uint32_t tkt_kernels_in_use(const tkt_trainer *trainer); /* tkt_kernels, never AUTO */

/* Back to the values the trainer started from; optimizer state, step, epoch and position zero; the seed stays. */
TKT_API tkt_status tkt_reset(tkt_trainer *trainer, tkt_error *error);

/* A checkpoint: values, optimizer state, step, seed, epoch, position, ticket hash; a checksum a section. */
TKT_API uint64_t tkt_checkpoint_bytes(const tkt_trainer *trainer);
TKT_API tkt_status tkt_save(const tkt_trainer *trainer, void *checkpoint, size_t capacity, tkt_error *error);
TKT_API tkt_status tkt_restore(tkt_trainer *trainer, const void *checkpoint, size_t checkpoint_bytes, tkt_error *error);

/* A new artifact: the same ticket with the present values as its trained values. */
TKT_API uint64_t tkt_export_bytes(const tkt_trainer *trainer);
TKT_API tkt_status tkt_export(const tkt_trainer *trainer, void *artifact, size_t capacity, tkt_error *error);

/* Initial values from a seed alone: elements first .. first + count - 1 of stream `stream`, each a pure function of its number,
 * the seed and the distribution, with the same bits on every target (FORMAT.md, Drawn values). Needs no trainer and no arena. */
TKT_API tkt_status tkt_draw(uint64_t seed, uint32_t stream, uint32_t distribution, float a, float b, uint32_t first,
                            uint32_t count, float *values, tkt_error *error);

#ifdef __cplusplus
}
#endif
#endif /* TICKET_RUNTIME_H */
