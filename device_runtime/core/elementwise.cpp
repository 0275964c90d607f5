// Operators that work element by element: functions of one element, add, mul and dropout.
#include <string.h>

#include "core/node_functions.h"
#include "core/runs.h"
#include "core/step.h"

namespace tkt {
namespace {

// Which function a node is, and its attribute.
struct Function {
  UnaryOp op;
  float attribute;
};

Function function_of(const NodeState &node) {
  switch (node.op->code) {
    case 10: return {kLeakyRelu, attribute_f32(node.attrs, 0)};
    case 11: return {kRelu6, 0};
    case 12: return {kHardswish, 0};
    case 13: return {kSigmoid, 0};
    case 14: return {kTanh, 0};
    case 15: return {node.attrs[0] == 0 ? kGelu : kGeluTanh, 0};
    default: return {kRelu, 0};
  }
}

// Which elements a dropout keeps in this step: a hash of seed, step, node, sample and element, so that the backward pass
// and a restored trainer find the same ones, and nothing is stored.
class Dropout {
 public:
  Dropout(const tkt_trainer &trainer, const NodeState &node)
      : elements_(trainer.buffers[node.output].place.elements()) {
    const float probability = attribute_f32(node.attrs, 0);
    threshold_ = static_cast<uint32_t>(double(probability) * 4294967296.0);
    scale_ = 1.0f / (1.0f - probability);
    uint64_t key = trainer.progress.seed * 0x9E3779B97F4A7C15u + trainer.progress.step;
    key = (key ^ (key >> 32)) * 0xD6E8FEB86659FD93u + node.output;
    key_ = mixed(static_cast<uint32_t>(key ^ (key >> 32)));
  }

  float factor(uint32_t sample, uint32_t element) const {
    return mixed(mixed(key_ + sample * elements_ + element) ^ key_) < threshold_ ? 0.0f : scale_;
  }

 private:
  static uint32_t mixed(uint32_t h) {  // a bijection that moves every bit to every place
    h = (h ^ (h >> 16)) * 0x7FEB352Du;
    h = (h ^ (h >> 15)) * 0x846CA68Bu;
    return h ^ (h >> 16);
  }

  uint32_t elements_, threshold_, key_;
  float scale_;
};

void drop(const tkt_trainer &trainer, const NodeState &node, const Tensor &from, const Tensor &to, bool accumulate) {
  const Dropout dropout(trainer, node);
  const uint32_t elements = from.place.elements(), lanes = trainer.lanes;
  groups_in_parts(trainer, uint64_t(16) * elements, [&](uint32_t first, uint32_t last) {
    for (uint32_t g = first; g < last; ++g) {
      for (uint32_t e = 0; e < elements; ++e) {
        const float *x = from.data + g * from.group_stride + size_t(from.place.at(e)) * lanes;
        float *y = to.data + g * to.group_stride + size_t(to.place.at(e)) * lanes;
        for (uint32_t l = 0; l < lanes; ++l) {
          const float v = x[l] * dropout.factor(trainer.first_sample + g * lanes + l, e);
          y[l] = accumulate ? y[l] + v : v;
        }
      }
    }
  });
}

void copy(const tkt_trainer &trainer, const Tensor &from, const Tensor &to, bool accumulate) {
  if (from.data == to.data) return;
  for_each_run(trainer, {from, to}, [&](float *const *at, size_t floats) {
    if (accumulate) return trainer.kernels->add(at[1], at[0], at[1], floats);
    memcpy(at[1], at[0], floats * sizeof(float));
  });
}

}  // namespace

void unary_forward(tkt_trainer &trainer, const NodeState &node) {
  const Function f = function_of(node);
  const Unary &unary = trainer.kernels->unary[f.op];
  for_each_run(trainer, {trainer.data(node.inputs[0]), trainer.data(node.output)},
               [&](float *const *at, size_t floats) { unary.forward(at[0], at[1], floats, f.attribute); });
}

void unary_backward(tkt_trainer &trainer, const NodeState &node) {
  const Contribution dx = contribution(trainer, node.inputs[0]);
  if (!dx.wanted) return;
  const Function f = function_of(node);
  const Unary &unary = trainer.kernels->unary[f.op];
  const Tensor kept = trainer.data(node.op->flags & kKeepsOutput ? node.output : node.inputs[0]);
  for_each_run(trainer, {kept, trainer.gradient(node.output), dx.into}, [&](float *const *at, size_t floats) {
    unary.backward(at[0], at[1], at[2], floats, f.attribute, dx.accumulate);
  });
}

const char *leaky_relu_broken_rule(const Artifact &artifact, const Node &node) {
  const float slope = attribute_f32(node.attrs, 0);
  if (!(slope >= 0) || !(slope - slope == 0)) return "has a slope that is not finite and at least 0";
  return shapes_are_equal(artifact, node);
}

const char *gelu_broken_rule(const Artifact &artifact, const Node &node) {
  return node.attrs[0] > 1 ? "has an unknown approximation" : shapes_are_equal(artifact, node);
}

void add_forward(tkt_trainer &trainer, const NodeState &node) {
  const Tensor tensors[] = {trainer.data(node.inputs[0]), trainer.data(node.inputs[1]), trainer.data(node.output)};
  for_each_run(trainer, tensors,
               [&](float *const *at, size_t floats) { trainer.kernels->add(at[0], at[1], at[2], floats); });
}

void add_backward(tkt_trainer &trainer, const NodeState &node) {
  const Tensor dy = trainer.gradient(node.output);
  for (uint32_t i = node.input_count; i-- > 0;) {  // the first input's gradient may be dy itself
    const Contribution dx = contribution(trainer, node.inputs[i]);
    if (dx.wanted) copy(trainer, dy, dx.into, dx.accumulate);
  }
}

void mul_forward(tkt_trainer &trainer, const NodeState &node) {
  const Tensor tensors[] = {trainer.data(node.inputs[0]), trainer.data(node.inputs[1]), trainer.data(node.output)};
  for_each_run(trainer, tensors,
               [&](float *const *at, size_t floats) { trainer.kernels->multiply(at[0], at[1], at[2], floats, false); });
}

void mul_backward(tkt_trainer &trainer, const NodeState &node) {
  const Tensor dy = trainer.gradient(node.output);
  for (uint32_t i = 0; i < 2; ++i) {
    const Contribution dx = contribution(trainer, node.inputs[i]);
    if (!dx.wanted) continue;
    const Tensor tensors[] = {trainer.data(node.inputs[1 - i]), dy, dx.into};
    for_each_run(trainer, tensors, [&](float *const *at, size_t floats) {
      trainer.kernels->multiply(at[0], at[1], at[2], floats, dx.accumulate);
    });
  }
}

const char *dropout_broken_rule(const Artifact &artifact, const Node &node) {
  const float probability = attribute_f32(node.attrs, 0);
  if (!(probability >= 0 && probability < 1)) return "has a probability that is not at least 0 and below 1";
  return shapes_are_equal(artifact, node);
}

void dropout_forward(tkt_trainer &trainer, const NodeState &node) {
  const Tensor x = trainer.data(node.inputs[0]), y = trainer.data(node.output);
  if (trainer.training) return drop(trainer, node, x, y, false);
  copy(trainer, x, y, false);
}

void dropout_backward(tkt_trainer &trainer, const NodeState &node) {
  const Contribution dx = contribution(trainer, node.inputs[0]);
  if (dx.wanted) drop(trainer, node, trainer.gradient(node.output), dx.into, dx.accumulate);
}

}  // namespace tkt
