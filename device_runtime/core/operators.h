// The operators as a table: each row says what a node must look like, what it keeps in the arena, and how it runs.
// A new operator is a new row in operators.cpp; nothing else knows any operator by its code.
#pragma once

#include "core/arena.h"
#include "core/artifact.h"

struct tkt_trainer;

namespace tkt {

struct NodeState;

struct Operator {
  uint32_t code;
  const char *name;
  uint16_t inputs, min_params, max_params, attrs;
  bool is_view;  // the output shares the input's memory

  // What a node breaks beyond the counts above, as the end of a sentence; nullptr if nothing.
  const char *(*broken_rule)(const Artifact &artifact, const Node &node);

  // Takes what the node keeps besides buffers out of the arena, and fills it unless the arena is only counting.
  // nullptr: nothing. `input_gradient`: the backward pass will ask for the gradient of the first input.
  void *(*lay_out)(const Artifact &artifact, const Node &node, bool input_gradient, Arena &arena);

  void (*forward)(tkt_trainer &trainer, const NodeState &node);

  // From the output's gradient to those of the parameters and, by Contribution, of the inputs.
  void (*backward)(tkt_trainer &trainer, const NodeState &node);
};

const Operator *find_operator(uint32_t code);  // nullptr: unknown

const char *broken_rule(const Operator &op, const Artifact &artifact, const Node &node);

// The rows' own functions.
const char *linear_broken_rule(const Artifact &artifact, const Node &node);
void *linear_lay_out(const Artifact &artifact, const Node &node, bool input_gradient, Arena &arena);
void linear_forward(tkt_trainer &trainer, const NodeState &node);
void linear_backward(tkt_trainer &trainer, const NodeState &node);
void relu_forward(tkt_trainer &trainer, const NodeState &node);
void relu_backward(tkt_trainer &trainer, const NodeState &node);
void flatten_backward(tkt_trainer &trainer, const NodeState &node);
void add_forward(tkt_trainer &trainer, const NodeState &node);
void add_backward(tkt_trainer &trainer, const NodeState &node);

}  // namespace tkt
