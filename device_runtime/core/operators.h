// The operators as a table: each row says what a node must look like, what it needs of memory, and how it runs.
// A new operator is a new row in operators.cpp; nothing else knows any operator by its code.
#pragma once

#include "core/arena.h"
#include "core/artifact.h"
#include "core/place.h"

struct tkt_trainer;

namespace tkt {

struct NodeState;
struct MemoryPlan;

enum OperatorFlags : uint32_t {
  kKeepsInputs = 1,         // the backward pass reads the data of the inputs
  kKeepsOutput = 2,         // the backward pass reads the data of the output
  kOverInput = 4,           // the output may lie where the first input lies
  kGradientOverOutput = 8,  // the first input's gradient may lie where the output's lies
  kView = 16,               // the output is the first input, if the places allow it
  kHeavy = 32,              // takes so long that it is run a second time only where memory demands it
};

struct Operator {
  uint32_t code;
  const char *name;
  uint16_t min_inputs, max_inputs, min_params, max_params, attrs;
  uint16_t state_params;  // the last ones, which have no gradient
  uint32_t flags;

  // What a node breaks beyond the counts above, as the end of a sentence; nullptr if nothing.
  const char *(*broken_rule)(const Artifact &artifact, const Node &node);

  // The zeros it reads around its input, and around its output's gradient. nullptr: none.
  void (*halos)(const Artifact &artifact, const Node &node, Halo *input, Halo *output_gradient);

  // Takes what the node keeps besides buffers out of the arena, and fills it unless the arena is only counting.
  void *(*lay_out)(const Artifact &artifact, const Node &node, const MemoryPlan &plan, Arena &arena);

  void (*forward)(tkt_trainer &trainer, const NodeState &node);

  // From the output's gradient to those of the parameters and, by contribution(), of the inputs.
  void (*backward)(tkt_trainer &trainer, const NodeState &node);

  // What is wrong with the samples of a part of a batch, as they lie in buffer 0; TKT_OK if nothing. nullptr: nothing.
  tkt_status (*check_samples)(const tkt_trainer &trainer, const NodeState &node, uint64_t first_sample,
                              tkt_error *error);

  // Takes over into the state parameters what the forward passes of a step have gathered. nullptr: nothing.
  void (*commit)(tkt_trainer &trainer, const NodeState &node);
};

const Operator *find_operator(uint32_t code);  // nullptr: unknown

const char *broken_rule(const Operator &op, const Artifact &artifact, const Node &node);

// A rule of several operators: every input has the shape of the output.
const char *shapes_are_equal(const Artifact &artifact, const Node &node);

float attribute_f32(const uint32_t *attrs, uint32_t index);

}  // namespace tkt
