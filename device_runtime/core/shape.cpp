// Operators that only move elements: reshape and concat.
#include <string.h>

#include "core/node_functions.h"
#include "core/step.h"

namespace tkt {
namespace {

// Element by element in row-major order, which both shapes share.
void move_elements(const tkt_trainer &trainer, const Tensor &from, const Tensor &to, bool accumulate) {
  if (from.data == to.data) return;
  const uint32_t elements = from.place.elements(), lanes = trainer.lanes;
  for (uint32_t g = 0; g < trainer.groups; ++g) {
    for (uint32_t e = 0; e < elements; ++e) {
      const float *x = from.data + g * from.group_stride + size_t(from.place.at(e)) * lanes;
      float *y = to.data + g * to.group_stride + size_t(to.place.at(e)) * lanes;
      for (uint32_t l = 0; l < lanes; ++l) y[l] = accumulate ? y[l] + x[l] : x[l];
    }
  }
}

// The channels of `part`, to or from `whole` from channel `first` on.
template <typename Line>
void for_each_line(const tkt_trainer &trainer, const Tensor &part, const Tensor &whole, uint32_t first, Line line) {
  const Place &p = part.place;
  for (uint32_t g = 0; g < trainer.groups; ++g) {
    for (uint32_t c = 0; c < p.channels; ++c) {
      for (uint32_t j = 0; j < p.rows; ++j) {
        line(part.data + g * part.group_stride + size_t(p.at(c, j, 0)) * trainer.lanes,
             whole.data + g * whole.group_stride + size_t(whole.place.at(first + c, j, 0)) * trainer.lanes,
             size_t(p.length) * trainer.lanes);
      }
    }
  }
}

}  // namespace

const char *reshape_broken_rule(const Artifact &artifact, const Node &node) {
  const uint32_t in = artifact.graph.elements(node.inputs[0]), out = artifact.graph.elements(node.index + 1);
  return in == out ? nullptr : "does not keep the number of elements";
}

void reshape_forward(tkt_trainer &trainer, const NodeState &node) {
  move_elements(trainer, trainer.data(node.inputs[0]), trainer.data(node.output), false);
}

void reshape_backward(tkt_trainer &trainer, const NodeState &node) {
  const Contribution dx = contribution(trainer, node.inputs[0]);
  if (dx.wanted) move_elements(trainer, trainer.gradient(node.output), dx.into, dx.accumulate);
}

const char *concat_broken_rule(const Artifact &artifact, const Node &node) {
  const Shape out = artifact.graph.shape(node.index + 1);
  uint64_t channels = 0;
  for (uint32_t i = 0; i < node.input_count; ++i) {
    Shape in = artifact.graph.shape(node.inputs[i]);
    channels += in.extent[0];
    in.extent[0] = out.extent[0];
    if (memcmp(&in, &out, sizeof in) != 0) return "has inputs that differ in more than the first dimension";
  }
  return channels == out.extent[0] ? nullptr : "has not the channels of its inputs together";
}

void concat_forward(tkt_trainer &trainer, const NodeState &node) {
  const Tensor y = trainer.data(node.output);
  for (uint32_t i = 0, first = 0; i < node.input_count; ++i) {
    const Tensor x = trainer.data(node.inputs[i]);
    for_each_line(trainer, x, y, first,
                  [](const float *from, float *to, size_t floats) { memcpy(to, from, floats * sizeof(float)); });
    first += x.place.channels;
  }
}

void concat_backward(tkt_trainer &trainer, const NodeState &node) {
  const Tensor dy = trainer.gradient(node.output);
  for (uint32_t i = 0, first = 0; i < node.input_count; ++i) {
    const uint32_t channels = trainer.buffers[node.inputs[i]].place.channels;
    const Contribution dx = contribution(trainer, node.inputs[i]);
    if (dx.wanted) {
      for_each_line(trainer, dx.into, dy, first, [&](float *to, const float *from, size_t floats) {
        if (dx.accumulate) return trainer.kernels->add(to, from, to, floats);
        memcpy(to, from, floats * sizeof(float));
      });
    }
    first += channels;
  }
}

}  // namespace tkt
