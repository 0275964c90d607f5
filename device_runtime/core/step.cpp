// A batch is worked through in parts, whose gradients add up. Whatever can be refused is refused before the update, so that
// an error leaves the values as they were; where updates are made inside the backward pass that holds for all but a
// gradient that overflows (ticket_runtime.h, store_gradients).
#include "core/step.h"

#include <string.h>

#include "core/error.h"
#include "core/loss.h"
#include "core/math.h"
#include "core/optimizer.h"
#include "core/plan.h"
#include "core/threads.h"

namespace tkt {
namespace {

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

tkt_status check_samples(const tkt_trainer &trainer, uint64_t first_sample, tkt_error *error) {
  for (uint32_t i = 0; i < trainer.artifact.graph.node_count; ++i) {
    const NodeState &node = trainer.nodes[i];
    if (node.op->check_samples == nullptr) continue;
    if (tkt_status status = node.op->check_samples(trainer, node, first_sample, error)) return status;
  }
  return TKT_OK;
}

void clear(const tkt_trainer &trainer, const Tensor &t) {
  memset(t.data, 0, size_t(trainer.groups) * t.group_stride * sizeof(float));
}

// False if a normalised value is not finite.
bool ingest(const tkt_trainer &trainer, const float *samples, const Tensor &input) {
  const uint32_t elements = trainer.artifact.graph.elements(0), lanes = trainer.lanes;
  bool finite = true;
  groups_in_parts(trainer, 4 * uint64_t(elements), [&](uint32_t first, uint32_t last) {
    const uint32_t begin = first * lanes, end = last == trainer.groups ? trainer.samples : last * lanes;
    const bool fine = trainer.lane_kernels->ingest(samples + size_t(begin) * elements, end - begin,
                                                   trainer.artifact.input, input.from_group(first));
    if (!fine) __atomic_store_n(&finite, false, __ATOMIC_RELAXED);
  });
  return finite;
}

void run_node(tkt_trainer &trainer, const NodeState &node) {
  const Tensor output = trainer.data(node.output);
  if (output.data != trainer.data(node.inputs[0]).data) clear_halo(trainer, output);
  node.op->forward(trainer, node);
}

// Makes half floats of what a buffer's root holds, or floats again of these.
void halve(const tkt_trainer &trainer, uint32_t buffer) {
  const Tensor t = trainer.data(buffer);
  trainer.kernels->halve(t.data, trainer.buffers[trainer.buffers[buffer].root].half, trainer.groups * t.group_stride);
}

void expand(tkt_trainer &trainer, uint32_t buffer) {
  const Buffer &b = trainer.buffers[buffer];
  bool &expanded = trainer.buffers[b.root].expanded;
  if (b.half == nullptr || expanded) return;
  const Tensor t = trainer.data(buffer);
  trainer.kernels->expand(b.half, t.data, trainer.groups * t.group_stride);
  expanded = true;
}

void expand_inputs(tkt_trainer &trainer, const NodeState &node) {
  for (uint32_t i = 0; i < node.input_count; ++i) expand(trainer, node.inputs[i]);
}

// The samples [first, first + count) of what the caller gave; `first_of_all` is the number of samples[0] for error texts.
tkt_status run_forward(tkt_trainer &trainer, const float *samples, uint32_t first, uint32_t count,
                       uint64_t first_of_all, tkt_error *error) {
  trainer.first_sample = first;
  trainer.samples = count;
  trainer.groups = (count + trainer.lanes - 1) / trainer.lanes;
  trainer.returning = false;
  const Tensor input = trainer.data(0);
  clear_halo(trainer, input);
  if (!ingest(trainer, samples, input)) {
    return not_finite(trainer, samples, count, first_of_all, error);
  }
  if (tkt_status status = check_samples(trainer, first_of_all, error)) return status;
  for (uint32_t i = 0; i < trainer.artifact.graph.node_count; ++i) {
    const NodeState &node = trainer.nodes[i];
    run_node(trainer, node);
    if (trainer.training && trainer.buffers[node.output].writes_half) halve(trainer, node.output);
  }
  return TKT_OK;
}

void run_node_backward(tkt_trainer &trainer, const NodeState &node) {
  if (trainer.buffers[node.output].gradient == nullptr) return;
  if (node.op->flags & kKeepsOutput) expand(trainer, node.output);
  if (node.op->flags & kKeepsInputs) expand_inputs(trainer, node);
  node.op->backward(trainer, node);
}

// Segment by segment: what was dropped is computed again by the values of the way forward, since a value changes at the
// earliest when its own node runs backward.
void run_backward(tkt_trainer &trainer) {
  const Graph &graph = trainer.artifact.graph;
  trainer.returning = true;
  for (uint32_t b = 0; b < graph.buffer_count; ++b) {
    trainer.buffers[b].gradient_written = trainer.buffers[b].expanded = false;
  }
  for (uint32_t end = graph.node_count, first; end > 0; end = first) {
    first = end - 1;
    while (!trainer.nodes[first].begins_segment) --first;
    for (uint32_t i = first; i < end; ++i) {
      if (!trainer.nodes[i].recomputed) continue;
      expand_inputs(trainer, trainer.nodes[i]);
      run_node(trainer, trainer.nodes[i]);
    }
    for (uint32_t i = end; i-- > first;) run_node_backward(trainer, trainer.nodes[i]);
  }
}

tkt_status loss_not_finite(float loss, uint64_t step, tkt_error *error) {
  return fail(error, TKT_NON_FINITE_LOSS, "the loss of step ", step, " is ", double(loss),
              "; the values were not touched; lower the learning rate, or reset or restore the trainer");
}

tkt_status statistic_not_finite(uint64_t step, tkt_error *error) {
  return fail(error, TKT_NON_FINITE_LOSS, "a running statistic of step ", step,
              " is not finite; the values were not touched; give samples in the units of the training data");
}

tkt_status gradient_not_finite(const tkt_trainer &trainer, const char *what, tkt_error *error) {
  return fail(error, TKT_NON_FINITE_LOSS, "a gradient of step ", trainer.progress.step, " is not finite; ", what,
              "; lower the learning rate, or reset or restore the trainer");
}

tkt_status backward_in_parts(tkt_trainer &trainer, const float *samples, const void *targets, uint32_t count,
                             bool in_place, float *loss, tkt_error *error) {
  if (tkt_status status = check_targets(trainer, targets, count, error)) return status;
  const uint32_t elements = trainer.artifact.graph.elements(0);
  const double weight = total_weight(trainer, targets, count);
  double total = 0;
  trainer.training = true;
  trainer.diverged = false;
  trainer.learning_rate = learning_rate_at(trainer.options, trainer.progress.step);
  for (uint32_t first = 0, part; first < count; first += part) {
    part = count - first < trainer.part ? count - first : trainer.part;
    const float *from = samples + size_t(first) * elements;
    if (tkt_status status = run_forward(trainer, from, first, part, first, error)) return status;
    total += training_loss(trainer, targets, weight);
    if (!is_finite(float(total / weight))) {
      return loss_not_finite(float(total / weight), trainer.progress.step, error);
    }
    if (trainer.diverged) return statistic_not_finite(trainer.progress.step, error);
    trainer.gradient_use = in_place ? GradientUse::kUpdate : first == 0 ? GradientUse::kStore : GradientUse::kAdd;
    run_backward(trainer);
  }
  *loss = float(total / weight);
  return TKT_OK;
}

void commit(tkt_trainer &trainer) {
  for (uint32_t i = 0; i < trainer.artifact.graph.node_count; ++i) {
    const NodeState &node = trainer.nodes[i];
    if (node.op->commit) node.op->commit(trainer, node);
  }
}

}  // namespace

Contribution contribution(tkt_trainer &trainer, uint32_t buffer) {
  Buffer &b = trainer.buffers[buffer];
  Contribution made = {trainer.gradient(buffer), b.gradient != nullptr, b.gradient_written};
  if (made.wanted && !made.accumulate) clear_halo(trainer, made.into);
  b.gradient_written = true;
  return made;
}

Contribution added_contribution(tkt_trainer &trainer, uint32_t buffer) {
  Buffer &b = trainer.buffers[buffer];
  Contribution made = {trainer.gradient(buffer), b.gradient != nullptr, true};
  if (made.wanted && !b.gradient_written) clear(trainer, made.into);
  b.gradient_written = true;
  return made;
}

void clear_halo(const tkt_trainer &trainer, const Tensor &t) {
  const Place &p = t.place;
  if (p.flat()) return;
  const uint32_t lanes = trainer.lanes;
  for (uint32_t g = 0; g < trainer.groups; ++g) {
    uint32_t at = 0;
    float *group = t.data + g * t.group_stride;
    for (uint32_t c = 0; c < p.channels; ++c) {
      for (uint32_t j = 0; j < p.rows; ++j) {
        const uint32_t line = p.at(c, j, 0);
        memset(group + size_t(at) * lanes, 0, size_t(line - at) * lanes * sizeof(float));
        at = line + p.length;
      }
    }
    memset(group + size_t(at) * lanes, 0, size_t(p.size - at) * lanes * sizeof(float));
  }
}

tkt_status compute_gradients(tkt_trainer &trainer, const float *samples, const void *targets, uint32_t count,
                             float *loss, tkt_error *error) {
  if (trainer.gradients == nullptr) {
    return fail(error, TKT_INVALID_INPUT,
                "this trainer keeps no gradients: plain SGD updates inside the backward pass; open it with "
                "store_gradients = 1");
  }
  return backward_in_parts(trainer, samples, targets, count, false, loss, error);
}

tkt_status train_step(tkt_trainer &trainer, const float *samples, const void *targets, uint32_t count, float *loss,
                      tkt_error *error) {
  const bool in_place = trainer.gradients == nullptr;
  if (tkt_status status = backward_in_parts(trainer, samples, targets, count, in_place, loss, error)) return status;
  if (in_place && trainer.diverged) return gradient_not_finite(trainer, "it was left out of the update", error);
  if (!in_place && !update(trainer)) return gradient_not_finite(trainer, "the values were not touched", error);
  commit(trainer);
  ++trainer.progress.step;
  return TKT_OK;
}

tkt_status evaluate(tkt_trainer &trainer, const float *samples, const void *targets, uint32_t count, double *loss_sum,
                    uint32_t *correct, tkt_error *error) {
  if (tkt_status status = check_targets(trainer, targets, count, error)) return status;
  const uint32_t elements = trainer.artifact.graph.elements(0);
  double sum = 0;
  uint32_t hits = 0;
  trainer.training = false;
  for (uint32_t first = 0, part; first < count; first += part) {
    part = count - first < trainer.part ? count - first : trainer.part;
    const float *from = samples + size_t(first) * elements;
    if (tkt_status status = run_forward(trainer, from, first, part, first, error)) return status;
    sum += evaluation_loss(trainer, targets, &hits);
  }
  if (!(sum - sum == 0)) return loss_not_finite(float(sum), trainer.progress.step, error);
  *loss_sum = sum;
  *correct = hits;
  return TKT_OK;
}

tkt_status predict(tkt_trainer &trainer, const float *samples, uint32_t count, float *outputs, tkt_error *error) {
  const uint32_t elements = trainer.artifact.graph.elements(0), width = trainer.artifact.graph.output_count();
  trainer.training = false;
  for (uint32_t first = 0, part; first < count; first += part) {
    part = count - first < trainer.part ? count - first : trainer.part;
    const float *from = samples + size_t(first) * elements;
    if (tkt_status status = run_forward(trainer, from, first, part, first, error)) return status;
    if (!write_outputs(trainer, outputs + size_t(first) * width)) {
      return fail(error, TKT_NON_FINITE_LOSS, "the scores of samples ", first, " to ", first + part - 1,
                  " are not finite; reset the trainer or restore an earlier checkpoint");
    }
  }
  return TKT_OK;
}

}  // namespace tkt
