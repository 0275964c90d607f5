// Buffers have memory of their own except views. Lifetimes are not overlapped: every activation lives a whole step.
#include "core/plan.h"

#include "core/artifact_parts.h"
#include "core/options.h"
#include "core/trainer.h"

namespace tkt {
namespace {

// What the walk must know about a buffer before the arena holds any table.
struct BufferFacts {
  NumberSet<kMaxNodes + 1> needs_gradient;  // a parameter lies before it
  NumberSet<kMaxNodes + 1> read_more_than_once;
};

BufferFacts find_facts(const Graph &graph) {
  BufferFacts facts;
  NumberSet<kMaxNodes + 1> read;
  Node node;
  for (Nodes nodes(graph); nodes.next(&node);) {
    bool needs = node.param_count > 0;
    for (uint32_t i = 0; i < node.input_count; ++i) {
      needs |= facts.needs_gradient.has(node.inputs[i]);
      if (read.has(node.inputs[i])) facts.read_more_than_once.add(node.inputs[i]);
      read.add(node.inputs[i]);
    }
    if (needs) facts.needs_gradient.add(node.index + 1);
  }
  return facts;
}

// A view's gradient can be its input's only if no other reader adds to that in between: the order of adding is fixed.
void lay_out_buffer(const Node &node, const Operator &op, const BufferFacts &facts, uint64_t floats, Arena &arena,
                    Buffer *buffers) {
  const uint32_t output = node.index + 1;
  const bool view = op.is_view, shares_gradient = view && !facts.read_more_than_once.has(node.inputs[0]);
  Buffer made = {};
  if (!view) made.data = arena.take<float>(kActivations, floats);
  if (facts.needs_gradient.has(output) && !shares_gradient) made.gradient = arena.take<float>(kActivations, floats);
  if (arena.counting()) return;
  const Buffer &input = buffers[node.inputs[0]];
  if (view) made.data = input.data;
  if (shares_gradient) made.gradient = input.gradient;
  made.elements = buffers[output].elements;
  buffers[output] = made;
}

void lay_out_nodes(const Artifact &artifact, uint32_t batch, Arena &arena, tkt_trainer *trainer) {
  const Graph &graph = artifact.graph;
  const BufferFacts facts = find_facts(graph);
  const uint64_t lanes = uint64_t(groups_of(batch)) * kLanes;
  NodeState *states = arena.take<NodeState>(kBookkeeping, graph.node_count);
  Buffer *buffers = arena.take<Buffer>(kBookkeeping, graph.buffer_count);
  float *input = arena.take<float>(kActivations, lanes * graph.elements(0));
  for (uint32_t b = 0; buffers && b < graph.buffer_count; ++b) buffers[b].elements = graph.elements(b);
  if (buffers) buffers[0].data = input;
  Node node;
  for (Nodes nodes(graph); nodes.next(&node);) {
    const Operator *op = find_operator(node.op);
    lay_out_buffer(node, *op, facts, lanes * graph.elements(node.index + 1), arena, buffers);
    bool input_gradient = facts.needs_gradient.has(node.inputs[0]);
    void *own = op->lay_out ? op->lay_out(artifact, node, input_gradient, arena) : nullptr;
    if (states == nullptr) continue;
    states[node.index] = {op, node.inputs, node.params, node.input_count, node.param_count, node.index + 1, own};
  }
  if (trainer == nullptr) return;
  trainer->nodes = states;
  trainer->buffers = buffers;
}

void lay_out_values(const Artifact &artifact, const tkt_options &options, Arena &arena, tkt_trainer *trainer) {
  const uint32_t moments = moment_count(options);
  float *arrays[4] = {};
  arrays[0] = arena.take<float>(kValues, artifact.value_count);
  arrays[1] = arena.take<float>(kGradients, artifact.value_count);
  for (uint32_t i = 0; i < moments; ++i) arrays[2 + i] = arena.take<float>(kOptimizer, artifact.value_count);
  Parameter *params = arena.take<Parameter>(kBookkeeping, artifact.parameter_count);
  if (trainer == nullptr) return;
  trainer->value_count = artifact.value_count;
  trainer->padded_count = groups_of(artifact.value_count) * kLanes;  // the arena rounds up to whole vectors
  trainer->values = arrays[0];
  trainer->gradients = arrays[1];
  trainer->moment1 = arrays[2];
  trainer->moment2 = arrays[3];
  trainer->params = params;
  uint32_t first = 0;
  for (uint32_t i = 0; i < artifact.parameter_count; ++i) {
    params[i] = {artifact.matrix(i), trainer->values + first, trainer->gradients + first};
    first += params[i].matrix.nnz;
  }
}

}  // namespace

tkt_trainer *lay_out(const Artifact &artifact, const tkt_options &options, Arena &arena) {
  tkt_trainer *trainer = arena.take<tkt_trainer>(kBookkeeping, 1);
  lay_out_values(artifact, options, arena, trainer);
  lay_out_nodes(artifact, options.batch, arena, trainer);
  if (trainer == nullptr) return nullptr;
  trainer->artifact = artifact;
  trainer->options = options;
  trainer->progress.seed = options.seed;
  reset(*trainer);
  return trainer;
}

void reset(tkt_trainer &trainer) {
  const Artifact &artifact = trainer.artifact;
  const uint8_t *start = trainer.options.start == TKT_START_TRAINED ? artifact.trained : artifact.init;
  const size_t bytes = sizeof(float) * size_t(trainer.value_count);
  memcpy(trainer.values, start, bytes);
  memset(trainer.gradients, 0, bytes);
  if (trainer.moment1) memset(trainer.moment1, 0, bytes);
  if (trainer.moment2) memset(trainer.moment2, 0, bytes);
  trainer.progress = {0, 0, trainer.progress.seed, 0, 1.0, 1.0};
}

}  // namespace tkt
