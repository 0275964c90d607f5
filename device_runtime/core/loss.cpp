// The exponentials stand in the output's gradient buffer until the gradient replaces them.
#include "core/loss.h"

#include "core/error.h"
#include "core/math.h"

namespace tkt {
namespace {

// One group of the output.
struct Group {
  const float *z;                           // (outputs, lanes)
  float *e;                                 // likewise: exponentials, then the gradient
  uint32_t outputs, lanes, first, samples;  // `first` in what the caller gave
  alignas(64) float maximum[kMaxLanes], sum[kMaxLanes];

  size_t at(uint32_t output, uint32_t lane) const { return size_t(output) * lanes + lane; }
  // -log p of one class
  float surprise(uint32_t output, uint32_t lane) const {
    return log_f32(sum[lane]) - (z[at(output, lane)] - maximum[lane]);
  }
};

void open_group(const tkt_trainer &trainer, uint32_t index, Group *group) {
  const uint32_t output = trainer.artifact.graph.buffer_count - 1, first = index * trainer.lanes;
  const Tensor z = trainer.data(output), e = trainer.gradient(output);
  const uint32_t left = trainer.samples - first;
  group->z = z.data + index * z.group_stride;
  group->e = e.data + index * e.group_stride;
  group->outputs = z.place.elements();
  group->lanes = trainer.lanes;
  group->first = trainer.first_sample + first;
  group->samples = left < trainer.lanes ? left : trainer.lanes;
}

void open_softmax(const tkt_trainer &trainer, uint32_t index, Group *group) {
  open_group(trainer, index, group);
  trainer.lane_kernels->softmax(group->z, group->outputs, group->e, group->maximum, group->sum);
}

float class_weight(const tkt_trainer &trainer, uint32_t output) {
  return trainer.artifact.class_weights ? trainer.artifact.class_weights[output] : 1.0f;
}

// loss = own (-log p[label]) + each sum over c of w[c] (-log p[c])
struct Smoothing {
  float each, weights;  // weights: the sum of w

  float own(float weight) const { return (1.0f - each_times_classes) * weight; }
  float each_times_classes;
};

Smoothing smoothing_of(const tkt_trainer &trainer, uint32_t outputs) {
  const float smoothing = trainer.options.label_smoothing;
  float weights = 0;
  for (uint32_t j = 0; j < outputs; ++j) weights = weights + class_weight(trainer, j);
  return {smoothing / float(outputs), weights, smoothing};
}

double cross_entropy_of_group(const tkt_trainer &trainer, const Group &g, const Smoothing &s, const int32_t *labels) {
  double total = 0;
  for (uint32_t l = 0; l < g.samples; ++l) {
    const uint32_t label = uint32_t(labels[l]);
    float loss = s.own(class_weight(trainer, label)) * g.surprise(label, l);
    if (s.each > 0) {
      float all = 0;
      for (uint32_t j = 0; j < g.outputs; ++j) all = fused_f32(class_weight(trainer, j), g.surprise(j, l), all);
      loss = fused_f32(s.each, all, loss);
    }
    total += double(loss);
  }
  return total;
}

// (p (own + each W) - own [j = label] - each w[j]) / weight in place of the exponentials; 0 in the lanes without a sample.
void cross_entropy_gradient(const tkt_trainer &trainer, Group &g, const Smoothing &s, const int32_t *labels,
                            float inverse_weight) {
  float own[kMaxLanes] = {}, whole[kMaxLanes] = {}, scale[kMaxLanes] = {};
  for (uint32_t l = 0; l < g.samples; ++l) {
    own[l] = s.own(class_weight(trainer, uint32_t(labels[l])));
    whole[l] = fused_f32(s.each, s.weights, own[l]);
    scale[l] = inverse_weight;
  }
  for (uint32_t j = 0; j < g.outputs; ++j) {
    float *e = g.e + g.at(j, 0);
    const float each = s.each * class_weight(trainer, j);
    for (uint32_t l = 0; l < g.lanes; ++l) {
      const float p = e[l] / g.sum[l] * whole[l];
      const float hit = l < g.samples && uint32_t(labels[l]) == j ? own[l] : 0.0f;
      e[l] = (p - hit - each) * scale[l];
    }
  }
}

uint32_t best_class(const Group &g, uint32_t lane) {
  uint32_t best = 0;
  for (uint32_t j = 1; j < g.outputs; ++j) {
    if (g.z[g.at(j, lane)] > g.z[g.at(best, lane)]) best = j;
  }
  return best;
}

// Of one output against its target, and the derivative by the output.
struct Pointwise {
  bool binary;

  float loss(float z, float t) const {
    const float difference = z - t;
    if (!binary) return difference * difference;
    const float size = __builtin_fabsf(z);
    return (z > 0 ? z : 0.0f) - z * t + log_f32(1.0f + exp_f32(-size));
  }
  float slope(float z, float t) const { return binary ? sigmoid_f32(z) - t : 2.0f * (z - t); }
};

double pointwise_training(tkt_trainer &trainer, const float *targets, float inverse_weight) {
  const Pointwise f = {trainer.artifact.graph.loss == kBinaryCrossEntropy};
  double total = 0;
  for (uint32_t i = 0; i < trainer.groups; ++i) {
    Group g;
    open_group(trainer, i, &g);
    for (uint32_t l = 0; l < g.lanes; ++l) {
      const float *t = targets + size_t(g.first + (l < g.samples ? l : 0)) * g.outputs;
      for (uint32_t j = 0; j < g.outputs; ++j) {
        const float z = g.z[g.at(j, l)];
        if (l < g.samples) total += double(f.loss(z, t[j]));
        g.e[g.at(j, l)] = l < g.samples ? f.slope(z, t[j]) * inverse_weight : 0.0f;
      }
    }
  }
  return total;
}

double pointwise_evaluation(tkt_trainer &trainer, const float *targets, uint32_t *correct) {
  const Pointwise f = {trainer.artifact.graph.loss == kBinaryCrossEntropy};
  double total = 0;
  for (uint32_t i = 0; i < trainer.groups; ++i) {
    Group g;
    open_group(trainer, i, &g);
    for (uint32_t l = 0; l < g.samples; ++l) {
      const float *t = targets + size_t(g.first + l) * g.outputs;
      double sum = 0;
      bool right = f.binary;
      for (uint32_t j = 0; j < g.outputs; ++j) {
        const float z = g.z[g.at(j, l)];
        sum += double(f.loss(z, t[j]));
        right = right && (z > 0) == (t[j] > 0.5f);
      }
      total += sum / double(g.outputs);
      *correct += right;
    }
  }
  return total;
}

}  // namespace

tkt_status check_targets(const tkt_trainer &trainer, const void *targets, uint32_t count, tkt_error *error) {
  const uint32_t outputs = trainer.artifact.graph.output_count(), loss = trainer.artifact.graph.loss;
  if (loss == kCrossEntropy) {
    const int32_t *labels = static_cast<const int32_t *>(targets);
    for (uint32_t i = 0; i < count; ++i) {
      if (labels[i] < 0 || uint32_t(labels[i]) >= outputs) {
        return fail(error, TKT_INVALID_INPUT, "labels[", i, "] is ", labels[i], ", but the ticket has ", outputs,
                    " classes (0..", outputs - 1, ")");
      }
    }
    return TKT_OK;
  }
  const float *values = static_cast<const float *>(targets);
  for (uint64_t i = 0; i < uint64_t(count) * outputs; ++i) {
    const bool allowed = loss == kBinaryCrossEntropy ? values[i] >= 0 && values[i] <= 1 : is_finite(values[i]);
    if (!allowed) {
      return fail(error, TKT_INVALID_INPUT, "targets[", i / outputs, "] has ", double(values[i]), " at output ",
                  i % outputs, ", but must be ", loss == kBinaryCrossEntropy ? "in 0 to 1" : "finite");
    }
  }
  return TKT_OK;
}

double total_weight(const tkt_trainer &trainer, const void *targets, uint32_t count) {
  if (trainer.artifact.graph.loss != kCrossEntropy)
    return double(count) * double(trainer.artifact.graph.output_count());
  if (trainer.artifact.class_weights == nullptr) return double(count);
  const int32_t *labels = static_cast<const int32_t *>(targets);
  double total = 0;
  for (uint32_t i = 0; i < count; ++i) total += double(trainer.artifact.class_weights[labels[i]]);
  return total > 0 ? total : 1.0;  // a batch of classes that do not count has a loss of 0
}

double training_loss(tkt_trainer &trainer, const void *targets, double weight) {
  const float inverse_weight = float(1.0 / weight);
  if (trainer.artifact.graph.loss != kCrossEntropy) {
    return pointwise_training(trainer, static_cast<const float *>(targets), inverse_weight);
  }
  const Smoothing smoothing = smoothing_of(trainer, trainer.artifact.graph.output_count());
  double total = 0;
  for (uint32_t i = 0; i < trainer.groups; ++i) {
    Group g;
    open_softmax(trainer, i, &g);
    const int32_t *labels = static_cast<const int32_t *>(targets) + g.first;
    total += cross_entropy_of_group(trainer, g, smoothing, labels);
    cross_entropy_gradient(trainer, g, smoothing, labels, inverse_weight);
  }
  return total;
}

double evaluation_loss(tkt_trainer &trainer, const void *targets, uint32_t *correct) {
  if (trainer.artifact.graph.loss != kCrossEntropy) {
    return pointwise_evaluation(trainer, static_cast<const float *>(targets), correct);
  }
  double total = 0;
  for (uint32_t i = 0; i < trainer.groups; ++i) {
    Group g;
    open_softmax(trainer, i, &g);
    const int32_t *labels = static_cast<const int32_t *>(targets) + g.first;
    for (uint32_t l = 0; l < g.samples; ++l) {
      total += double(g.surprise(uint32_t(labels[l]), l));
      *correct += best_class(g, l) == uint32_t(labels[l]);
    }
  }
  return total;
}

bool write_outputs(tkt_trainer &trainer, float *outputs) {
  const uint32_t loss = trainer.artifact.graph.loss;
  bool finite = true;
  for (uint32_t i = 0; i < trainer.groups; ++i) {
    Group g;
    if (loss == kCrossEntropy) {
      open_softmax(trainer, i, &g);
    } else {
      open_group(trainer, i, &g);
    }
    float *row = outputs + size_t(i) * trainer.lanes * g.outputs;
    for (uint32_t l = 0; l < g.samples; ++l, row += g.outputs) {
      for (uint32_t j = 0; j < g.outputs; ++j) {
        const float z = g.z[g.at(j, l)];
        row[j] = loss == kCrossEntropy ? g.e[g.at(j, l)] / g.sum[l] : loss == kBinaryCrossEntropy ? sigmoid_f32(z) : z;
        finite &= is_finite(z);
      }
    }
  }
  return finite;
}

}  // namespace tkt
