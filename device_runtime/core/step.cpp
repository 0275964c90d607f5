// Whatever can be refused is refused before the update, so that an error leaves the values as they were.
#include "core/step.h"

#include "core/error.h"
#include "core/loss.h"
#include "core/optimizer.h"

namespace tkt {
namespace {

tkt_status check_labels(const tkt_trainer &trainer, const int32_t *labels, uint32_t count, tkt_error *error) {
  const uint32_t classes = trainer.artifact.graph.class_count();
  for (uint32_t i = 0; i < count; ++i) {
    if (labels[i] < 0 || uint32_t(labels[i]) >= classes) {
      return fail(error, TKT_INVALID_INPUT, "labels[", i, "] is ", labels[i], ", but the ticket has ", classes,
                  " classes (0..", classes - 1, ")");
    }
  }
  return TKT_OK;
}

bool is_finite(float x) { return x - x == 0; }

// Names the sample that ingest() refused.
tkt_status not_finite(const tkt_trainer &trainer, const float *samples, uint32_t count, uint64_t first_sample,
                      tkt_error *error) {
  const uint32_t elements = trainer.artifact.graph.elements(0);
  for (uint64_t i = 0; i < uint64_t(count) * elements; ++i) {
    if (!is_finite(samples[i])) {
      return fail(error, TKT_INVALID_INPUT, "samples[", first_sample + i / elements, "] has ", double(samples[i]),
                  " at element ", i % elements, "; give finite numbers only");
    }
  }
  return fail(
      error, TKT_NON_FINITE_LOSS,
      "a sample becomes infinite by the artifact's normalisation; give samples in the units of the training data");
}

tkt_status run_forward(tkt_trainer &trainer, const float *samples, uint32_t count, uint64_t first_sample,
                       tkt_error *error) {
  trainer.samples = count;
  trainer.groups = groups_of(count);
  if (!trainer.kernels->ingest(samples, count, trainer.artifact.input, trainer.buffers[0].data)) {
    return not_finite(trainer, samples, count, first_sample, error);
  }
  for (uint32_t i = 0; i < trainer.artifact.graph.node_count; ++i) {
    const NodeState &node = trainer.nodes[i];
    if (node.op->forward) node.op->forward(trainer, node);
  }
  return TKT_OK;
}

void run_backward(tkt_trainer &trainer) {
  const Graph &graph = trainer.artifact.graph;
  for (uint32_t b = 0; b < graph.buffer_count; ++b) trainer.buffers[b].gradient_written = false;
  for (uint32_t i = graph.node_count; i-- > 0;) {
    const NodeState &node = trainer.nodes[i];
    if (trainer.buffers[node.output].gradient) node.op->backward(trainer, node);
  }
}

tkt_status loss_not_finite(float loss, uint64_t step, tkt_error *error) {
  return fail(error, TKT_NON_FINITE_LOSS, "the loss of step ", step, " is ", double(loss),
              "; the values were not touched; lower the learning rate, or reset or restore the trainer");
}

}  // namespace

Contribution contribution(tkt_trainer &trainer, uint32_t buffer) {
  Buffer &b = trainer.buffers[buffer];
  Contribution made = {b.gradient, b.gradient_written};
  b.gradient_written = true;
  return made;
}

tkt_status compute_gradients(tkt_trainer &trainer, const float *samples, const int32_t *labels, uint32_t count,
                             float *loss, tkt_error *error) {
  if (tkt_status status = check_labels(trainer, labels, count, error)) return status;
  if (tkt_status status = run_forward(trainer, samples, count, 0, error)) return status;
  float mean = float(cross_entropy(trainer, labels, true) / double(count));
  if (!is_finite(mean)) return loss_not_finite(mean, trainer.progress.step, error);
  run_backward(trainer);
  *loss = mean;
  return TKT_OK;
}

tkt_status train_step(tkt_trainer &trainer, const float *samples, const int32_t *labels, uint32_t count, float *loss,
                      tkt_error *error) {
  if (tkt_status status = compute_gradients(trainer, samples, labels, count, loss, error)) return status;
  if (!trainer.kernels->all_finite(trainer.gradients, trainer.padded_count)) {
    return fail(
        error, TKT_NON_FINITE_LOSS, "a gradient of step ", trainer.progress.step,
        " is not finite; the values were not touched; lower the learning rate, or reset or restore the trainer");
  }
  update(trainer);
  return TKT_OK;
}

tkt_status evaluate(tkt_trainer &trainer, const float *samples, const int32_t *labels, uint32_t count, double *loss_sum,
                    uint32_t *correct, tkt_error *error) {
  if (tkt_status status = check_labels(trainer, labels, count, error)) return status;
  const uint32_t batch = trainer.options.batch, elements = trainer.artifact.graph.elements(0);
  double sum = 0;
  uint32_t hits = 0;
  for (uint32_t first = 0, part; first < count; first += part) {
    part = count - first < batch ? count - first : batch;
    const float *from = samples + size_t(first) * elements;
    if (tkt_status status = run_forward(trainer, from, part, first, error)) return status;
    hits += count_correct(trainer, labels + first);
    sum += cross_entropy(trainer, labels + first, false);
  }
  if (!(sum - sum == 0)) return loss_not_finite(float(sum), trainer.progress.step, error);
  *loss_sum = sum;
  *correct = hits;
  return TKT_OK;
}

tkt_status predict(tkt_trainer &trainer, const float *samples, uint32_t count, float *probabilities, tkt_error *error) {
  const uint32_t batch = trainer.options.batch, elements = trainer.artifact.graph.elements(0);
  const uint32_t classes = trainer.artifact.graph.class_count();
  for (uint32_t first = 0, part; first < count; first += part) {
    part = count - first < batch ? count - first : batch;
    const float *from = samples + size_t(first) * elements;
    if (tkt_status status = run_forward(trainer, from, part, first, error)) return status;
    if (!write_probabilities(trainer, probabilities + size_t(first) * classes)) {
      return fail(error, TKT_NON_FINITE_LOSS, "the scores of samples ", first, " to ", first + part - 1,
                  " are not finite; reset the trainer or restore an earlier checkpoint");
    }
  }
  return TKT_OK;
}

}  // namespace tkt
