// Operators that work element by element: relu, add, and flatten, which moves nothing.
#include "core/operators.h"
#include "core/step.h"
#include "core/trainer.h"

namespace tkt {
namespace {

// Hands the output's gradient on to one input as it is.
void pass_on(tkt_trainer &trainer, const float *dy, uint32_t input) {
  Contribution dx = contribution(trainer, input);
  if (dx.into == nullptr || dx.into == dy) return;
  const uint64_t floats = trainer.floats(trainer.buffers[input]);
  if (dx.accumulate) {
    trainer.kernels->add(dx.into, dy, dx.into, floats);
  } else {
    memcpy(dx.into, dy, static_cast<size_t>(floats) * sizeof(float));
  }
}

}  // namespace

void relu_forward(tkt_trainer &trainer, const NodeState &node) {
  const Buffer &y = trainer.buffers[node.output];
  trainer.kernels->relu(trainer.buffers[node.inputs[0]].data, y.data, trainer.floats(y));
}

void relu_backward(tkt_trainer &trainer, const NodeState &node) {
  const Buffer &y = trainer.buffers[node.output];
  Contribution dx = contribution(trainer, node.inputs[0]);
  if (dx.into == nullptr) return;
  trainer.kernels->relu_gradient(y.data, y.gradient, dx.into, trainer.floats(y), dx.accumulate);
}

void add_forward(tkt_trainer &trainer, const NodeState &node) {
  const Buffer &y = trainer.buffers[node.output];
  trainer.kernels->add(trainer.buffers[node.inputs[0]].data, trainer.buffers[node.inputs[1]].data, y.data,
                       trainer.floats(y));
}

void add_backward(tkt_trainer &trainer, const NodeState &node) {
  const float *dy = trainer.buffers[node.output].gradient;
  for (uint32_t i = 0; i < node.input_count; ++i) pass_on(trainer, dy, node.inputs[i]);
}

// The gradient is the input's own unless other nodes read the input too.
void flatten_backward(tkt_trainer &trainer, const NodeState &node) {
  pass_on(trainer, trainer.buffers[node.output].gradient, node.inputs[0]);
}

}  // namespace tkt
