// The C interface over the core: checks of pointers and counts, and nothing else of its own. ticket_runtime.h has the text.
#include "ticket_runtime.h"

#include "core/budget.h"
#include "core/checkpoint.h"
#include "core/draw.h"
#include "core/error.h"
#include "core/export.h"
#include "core/options.h"
#include "core/plan.h"
#include "core/sampler.h"
#include "core/step.h"
#include "core/threads.h"

using namespace tkt;

namespace {

tkt_status null_argument(tkt_error *error, const char *name) {
  return fail(error, TKT_INVALID_INPUT, name, " is NULL; give the address of one");
}

// The caller's struct must be the one this library was built with.
template <typename Struct>
tkt_status check_struct(const Struct *given, const char *name, tkt_error *error) {
  if (given == nullptr) return null_argument(error, name);
  if (given->struct_bytes == sizeof *given) return TKT_OK;
  return fail(error, TKT_INVALID_INPUT, name, "->struct_bytes is ", given->struct_bytes, ", but must be set to ",
              sizeof *given, ", the sizeof this runtime's struct; build with its header");
}

tkt_status check_samples(const tkt_trainer *trainer, const float *samples, uint32_t count, tkt_error *error) {
  if (trainer == nullptr) return null_argument(error, "trainer");
  if (samples == nullptr) return null_argument(error, "samples");
  if (count == 0) return fail(error, TKT_INVALID_INPUT, "count is 0; give at least one sample");
  return TKT_OK;
}

tkt_status check_batch(const tkt_trainer *trainer, const float *samples, const void *targets, uint32_t count,
                       const float *loss, tkt_error *error) {
  if (tkt_status status = check_samples(trainer, samples, count, error)) return status;
  if (targets == nullptr) return null_argument(error, "targets");
  if (loss == nullptr) return null_argument(error, "loss");
  if (count <= trainer->options.batch) return TKT_OK;
  return fail(error, TKT_INVALID_INPUT, "count is ", count, ", but the trainer was opened for batches of at most ",
              trainer->options.batch);
}

tkt_status check_arena(const tkt_options &options, const void *arena, uint64_t arena_bytes, uint64_t needed,
                       tkt_error *error) {
  if (options.budget_bytes != 0 && needed > options.budget_bytes) {
    return fail(
        error, TKT_BUDGET_EXCEEDED, "the trainer needs ", needed, " bytes, but the budget is ", options.budget_bytes,
        "; take SGD instead of Adam, half_activations, a sparser ticket, or a smaller batch or micro_batch if you "
        "set one");
  }
  if (arena == nullptr) return fail(error, TKT_INVALID_INPUT, "arena is NULL; give ", needed, " bytes of memory");
  if (reinterpret_cast<uintptr_t>(arena) % kCallerAlignment != 0) {
    return fail(error, TKT_INVALID_INPUT, "arena is not at an address divisible by ", kCallerAlignment,
                "; align it to that");
  }
  if (arena_bytes >= needed) return TKT_OK;
  return fail(error, TKT_BUDGET_EXCEEDED, "the trainer needs ", needed, " bytes, but the arena has ", arena_bytes,
              "; ask tkt_arena_bytes for its size");
}

}  // namespace

extern "C" {

uint32_t tkt_abi_version(void) { return TKT_ABI_VERSION; }

const char *tkt_status_name(int32_t status) { return status_name(status); }

const char *tkt_operator_name(uint32_t code) {
  const Operator *op = find_operator(code);
  return op ? op->name : nullptr;
}

tkt_status tkt_inspect(const void *artifact, size_t artifact_bytes, tkt_info *info, tkt_error *error) {
  Artifact a;
  if (tkt_status status = check_struct(info, "info", error)) return status;
  if (tkt_status status = read_artifact(artifact, artifact_bytes, &a, error)) return status;
  const Section card = a.file.find(kCard);
  *info = {};
  info->struct_bytes = sizeof *info;
  info->input_elements = a.graph.elements(0);
  info->input_rank = a.input.shape.rank;
  memcpy(info->input_shape, a.input.shape.extent, sizeof info->input_shape);
  info->class_count = a.graph.output_count();
  info->loss = a.graph.loss;
  info->node_count = a.graph.node_count;
  info->parameter_count = a.parameter_count;
  info->has_trained = a.trained.data != nullptr;
  info->card_bytes = card.bytes;
  info->trained_count = a.trained_count;
  info->value_count = a.value_count;
  info->dense_count = a.dense_count;
  info->pruned_layer_live = a.pruned_layer_live;
  info->pruned_layer_weights = a.pruned_layer_weights;
  info->card = reinterpret_cast<const char *>(card.data);
  memcpy(info->ticket_hash, a.file.ticket_hash(), sizeof info->ticket_hash);
  return TKT_OK;
}

tkt_status tkt_operators(const void *artifact, size_t artifact_bytes, uint32_t *codes, uint32_t capacity,
                         tkt_error *error) {
  Artifact a;
  if (codes == nullptr && capacity > 0) return null_argument(error, "codes");
  if (tkt_status status = read_artifact(artifact, artifact_bytes, &a, error)) return status;
  Node node;
  for (Nodes nodes(a.graph); nodes.next(&node) && node.index < capacity;) codes[node.index] = node.op;
  return TKT_OK;
}

tkt_status tkt_default_options(const void *artifact, size_t artifact_bytes, tkt_options *options, tkt_error *error) {
  Artifact a;
  if (tkt_status status = check_struct(options, "options", error)) return status;
  if (tkt_status status = read_artifact(artifact, artifact_bytes, &a, error)) return status;
  *options = options_from(a.recipe);
  return TKT_OK;
}

tkt_status tkt_arena_bytes(const void *artifact, size_t artifact_bytes, const tkt_options *options,
                           uint64_t *arena_bytes, tkt_error *error) {
  Planned p;
  if (arena_bytes == nullptr) return null_argument(error, "arena_bytes");
  if (tkt_status status = plan(artifact, artifact_bytes, options, &p, error)) return status;
  *arena_bytes = p.counted.total();
  return TKT_OK;
}

tkt_status tkt_memory_plan(const void *artifact, size_t artifact_bytes, const tkt_options *options, tkt_memory *memory,
                           tkt_error *error) {
  Planned p;
  if (tkt_status status = check_struct(memory, "memory", error)) return status;
  if (tkt_status status = plan(artifact, artifact_bytes, options, &p, error)) return status;
  *memory = {};
  memory->struct_bytes = sizeof *memory;
  memory->values = p.counted.used(kValues);
  memory->gradients = p.counted.used(kGradients);
  memory->optimizer = p.counted.used(kOptimizer);
  memory->activations = p.counted.used(kActivations);
  memory->index = p.counted.used(kIndex);
  memory->bookkeeping = p.counted.used(kBookkeeping);
  memory->micro_batch = part_of(p.options);
  for (uint32_t b = 0; b < p.artifact.graph.buffer_count; ++b) {
    memory->recomputed_nodes += (p.memory.use[b] & kRecomputed) != 0;
    memory->half_buffers += (p.memory.use[b] & kWritesHalf) != 0;
  }
  memory->total = p.counted.total();
  return TKT_OK;
}

tkt_status tkt_open(const void *artifact, size_t artifact_bytes, const tkt_options *options, void *arena,
                    size_t arena_bytes, tkt_trainer **trainer, tkt_error *error) {
  Planned p;
  if (trainer == nullptr) return null_argument(error, "trainer");
  if (tkt_status status = plan(artifact, artifact_bytes, options, &p, error)) return status;
  if (tkt_status status = check_arena(p.options, arena, arena_bytes, p.counted.total(), error)) return status;
  const Kernels *kernels = find_kernels(options->kernels);
  if (kernels == nullptr) {
    return fail(error, TKT_INVALID_INPUT, "kernels ", options->kernels,
                " are not in this build or not for this processor; take 0 (AUTO)",
                find_kernels(TKT_KERNELS_SCALAR) ? " or 1 (SCALAR)" : "");
  }
  Arena memory(arena);
  *trainer = nullptr;
  if (tkt_status status = lay_out(p.artifact, p.options, p.memory, memory, trainer, error)) return status;
  (*trainer)->kernels = kernels;
  (*trainer)->lane_kernels = &kernels->lanes[lane_index((*trainer)->lanes)];
  reset(**trainer);
  if (start_team((*trainer)->team)) return TKT_OK;
  *trainer = nullptr;
  return fail(error, TKT_INVALID_INPUT, "threads is ", options->threads,
              ", but the system gives no more of them; ask for fewer");
}

void tkt_close(tkt_trainer *trainer) {
  if (trainer == nullptr) return;
  stop_team(trainer->team);
  trainer->team = nullptr;
}

tkt_status tkt_next_batch(tkt_trainer *trainer, uint32_t sample_count, uint32_t *indices, uint32_t *count,
                          tkt_error *error) {
  if (trainer == nullptr) return null_argument(error, "trainer");
  if (indices == nullptr) return null_argument(error, "indices");
  if (count == nullptr) return null_argument(error, "count");
  if (sample_count == 0) return fail(error, TKT_INVALID_INPUT, "sample_count is 0; give at least one sample");
  *count = next_batch(trainer->progress, trainer->options.batch, sample_count, indices);
  return TKT_OK;
}

tkt_status tkt_train_step(tkt_trainer *trainer, const float *samples, const void *targets, uint32_t count, float *loss,
                          tkt_error *error) {
  if (tkt_status status = check_batch(trainer, samples, targets, count, loss, error)) return status;
  return train_step(*trainer, samples, targets, count, loss, error);
}

tkt_status tkt_set_learning_rate(tkt_trainer *trainer, float learning_rate, tkt_error *error) {
  if (trainer == nullptr) return null_argument(error, "trainer");
  if (tkt_status status = check_learning_rate(learning_rate, error)) return status;
  trainer->options.learning_rate = learning_rate;
  return TKT_OK;
}

tkt_status tkt_compute_gradients(tkt_trainer *trainer, const float *samples, const void *targets, uint32_t count,
                                 float *loss, tkt_error *error) {
  if (tkt_status status = check_batch(trainer, samples, targets, count, loss, error)) return status;
  return compute_gradients(*trainer, samples, targets, count, loss, error);
}

tkt_status tkt_evaluate(tkt_trainer *trainer, const float *samples, const void *targets, uint32_t count,
                        double *loss_sum, uint32_t *correct, tkt_error *error) {
  if (tkt_status status = check_samples(trainer, samples, count, error)) return status;
  if (targets == nullptr) return null_argument(error, "targets");
  if (loss_sum == nullptr) return null_argument(error, "loss_sum");
  if (correct == nullptr) return null_argument(error, "correct");
  return evaluate(*trainer, samples, targets, count, loss_sum, correct, error);
}

tkt_status tkt_predict(tkt_trainer *trainer, const float *samples, uint32_t count, float *outputs, tkt_error *error) {
  if (tkt_status status = check_samples(trainer, samples, count, error)) return status;
  if (outputs == nullptr) return null_argument(error, "outputs");
  return predict(*trainer, samples, count, outputs, error);
}

const float *tkt_values(const tkt_trainer *trainer) { return trainer ? trainer->values : nullptr; }

const float *tkt_gradients(const tkt_trainer *trainer) { return trainer ? trainer->gradients : nullptr; }

tkt_status tkt_get_progress(const tkt_trainer *trainer, tkt_progress *progress, tkt_error *error) {
  if (trainer == nullptr) return null_argument(error, "trainer");
  if (tkt_status status = check_struct(progress, "progress", error)) return status;
  *progress = {sizeof *progress, trainer->progress.position, trainer->progress.step, trainer->progress.epoch};
  return TKT_OK;
}

uint32_t tkt_kernels_in_use(const tkt_trainer *trainer) {
  return trainer ? trainer->kernels->name : uint32_t(TKT_KERNELS_AUTO);
}

tkt_status tkt_reset(tkt_trainer *trainer, tkt_error *error) {
  if (trainer == nullptr) return null_argument(error, "trainer");
  reset(*trainer);
  return TKT_OK;
}

uint64_t tkt_checkpoint_bytes(const tkt_trainer *trainer) { return trainer ? checkpoint_bytes(*trainer) : 0; }

tkt_status tkt_save(const tkt_trainer *trainer, void *checkpoint, size_t capacity, tkt_error *error) {
  return trainer ? save(*trainer, checkpoint, capacity, error) : null_argument(error, "trainer");
}

tkt_status tkt_restore(tkt_trainer *trainer, const void *checkpoint, size_t checkpoint_bytes, tkt_error *error) {
  return trainer ? restore(*trainer, checkpoint, checkpoint_bytes, error) : null_argument(error, "trainer");
}

uint64_t tkt_export_bytes(const tkt_trainer *trainer) { return trainer ? export_bytes(*trainer) : 0; }

tkt_status tkt_export(const tkt_trainer *trainer, void *artifact, size_t capacity, tkt_error *error) {
  return trainer ? export_artifact(*trainer, artifact, capacity, error) : null_argument(error, "trainer");
}

tkt_status tkt_draw(uint64_t seed, uint32_t stream, uint32_t distribution, float a, float b, uint32_t first,
                    uint32_t count, float *values, tkt_error *error) {
  const Distribution from{distribution, a, b};
  if (values == nullptr) return null_argument(error, "values");
  if (!is_distribution(from)) {
    return fail(error, TKT_INVALID_INPUT, "distribution ", distribution, " of ", double(a), " and ", double(b),
                " is none; take 0 (constant; the second is 0), 1 (uniform) or 2 (normal), of finite numbers");
  }
  if (uint64_t(first) + count > uint64_t(1) << 32) {
    return fail(error, TKT_INVALID_INPUT, "count ", count, " from element ", first,
                " on is beyond 2^32 - 1; draw less");
  }
  for (uint32_t i = 0; i < count; ++i) values[i] = draw(from, seed, stream, first + i);
  return TKT_OK;
}

}  // extern "C"
