// What lives as long as the trainer has memory of its own; data and gradients of buffers share one block (memory_plan.h).
#include "core/plan.h"

#include <string.h>

#include "core/options.h"
#include "core/threads.h"
#include "core/trainer.h"

namespace tkt {
namespace {

constexpr uint32_t kScratchFloats = 256;

float *at_unit(float *block, uint32_t units, uint32_t groups) { return block + size_t(units) * groups * kUnitFloats; }

void lay_out_buffers(const Graph &graph, const MemoryPlan &plan, Arena &arena, tkt_trainer *trainer) {
  const uint32_t groups = plan.groups;
  Buffer *buffers = arena.take<Buffer>(kBookkeeping, graph.buffer_count);
  float *block = arena.take<float>(kActivations, uint64_t(plan.units) * groups * kUnitFloats);
  if (buffers == nullptr) return;
  for (uint32_t b = 0; b < graph.buffer_count; ++b) {
    Buffer &buffer = buffers[b];
    buffer.place = plan.place(graph, b);
    buffer.gradient_place = plan.gradient_place(graph, b);
    buffer.root = plan.data.root[b];
    buffer.data[0] = buffer.data[1] = at_unit(block, plan.data.offset[buffer.root], groups);
    if (plan.lives_again(b)) buffer.data[1] = at_unit(block, plan.again[buffer.root], groups);
    if (plan.use[b] & kHalved) {
      buffer.half = reinterpret_cast<uint16_t *>(at_unit(block, plan.half[buffer.root], groups));
    }
    buffer.writes_half = (plan.use[b] & kWritesHalf) != 0;
    if (plan.needs_gradient[b]) buffer.gradient = at_unit(block, plan.gradient.offset[plan.gradient.root[b]], groups);
  }
  trainer->buffers = buffers;
}

void lay_out_nodes(const Artifact &artifact, const MemoryPlan &plan, Arena &arena, tkt_trainer *trainer) {
  NodeState *states = arena.take<NodeState>(kBookkeeping, artifact.graph.node_count);
  Node node;
  for (Nodes nodes(artifact.graph); nodes.next(&node);) {
    const Operator *op = find_operator(node.op);
    void *own = op->lay_out ? op->lay_out(artifact, node, plan, arena) : nullptr;
    if (states == nullptr) continue;
    const bool recomputed = (plan.use[node.index + 1] & kRecomputed) != 0;
    const bool begins_segment = (plan.use[node.index] & kBeginsSegment) != 0;
    states[node.index] = {
        op,         node.inputs,    node.params, node.attrs, node.input_count, node.param_count, node.index + 1,
        recomputed, begins_segment, own};
  }
  if (trainer) trainer->nodes = states;
}

// The values of the largest row or block of rows, before and after it is unpacked.
uint32_t longest_row(const Artifact &artifact) {
  uint32_t longest = artifact.longest_row > 1 ? artifact.longest_row : 1;
  for (uint32_t i = 0; i < artifact.parameter_count; ++i) {
    const Matrix m = artifact.matrix(i);
    if (m.sparse && m.row_ptr == nullptr) continue;
    for (uint32_t r = 0; r < m.rows; r += m.block) {
      const uint32_t values = m.block * m.entries(r);
      longest = longest > values ? longest : values;
      if (m.dense()) break;
    }
  }
  return longest;
}

void lay_out_values(const Artifact &artifact, const tkt_options &options, Arena &arena, tkt_trainer *trainer) {
  const uint32_t moments = moment_count(options), trained = artifact.trained_count;
  const bool in_place = updates_in_place(options), needs_scratch = in_place || part_of(options) < options.batch;
  const uint32_t longest = longest_row(artifact);
  const uint32_t scratch_floats = longest > kScratchFloats ? longest : kScratchFloats;
  float *values = arena.take<float>(kValues, artifact.value_count);
  float *gradients = in_place ? nullptr : arena.take<float>(kGradients, trained);
  float *scratch = needs_scratch ? arena.take<float>(kGradients, uint64_t(scratch_floats) * options.threads) : nullptr;
  float *moment[2] = {};
  for (uint32_t i = 0; i < moments; ++i) moment[i] = arena.take<float>(kOptimizer, trained);
  Parameter *params = arena.take<Parameter>(kBookkeeping, artifact.parameter_count);
  if (trainer == nullptr) return;
  trainer->value_count = artifact.value_count;
  trainer->trained_count = trained;
  trainer->values = values;
  trainer->gradients = gradients;
  trainer->scratch = scratch;
  trainer->scratch_floats = scratch_floats;
  trainer->moment1 = moment[0];
  trainer->moment2 = moment[1];
  trainer->params = params;
  uint32_t first = 0;
  for (uint32_t i = 0; i < artifact.parameter_count; ++i) {
    const Matrix matrix = artifact.matrix(i);
    params[i] = {matrix, values + first, gradients ? gradients + first : nullptr};
    first += matrix.stored;
  }
}

}  // namespace

uint32_t part_of(const tkt_options &options) {
  return options.micro_batch != 0 && options.micro_batch < options.batch ? options.micro_batch : options.batch;
}

bool updates_in_place(const tkt_options &options) {
  return options.optimizer == TKT_SGD && moment_count(options) == 0 && !(options.clip_norm > 0) &&
         options.store_gradients == 0 && part_of(options) == options.batch;
}

tkt_status lay_out(const Artifact &given, const tkt_options &options, const MemoryPlan &plan, Arena &arena,
                   tkt_trainer **made, tkt_error *error) {
  tkt_trainer *trainer = arena.take<tkt_trainer>(kBookkeeping, 1);
  if (trainer) trainer->artifact = given;
  if (given.packed_pattern.data) {
    void *pattern = arena.take<uint16_t>(kIndex, given.pattern.bytes / 2);  // columns have 2 or 4 bytes
    const tkt_status status = trainer ? unpack_pattern(&trainer->artifact, pattern, error) : TKT_OK;
    if (status != TKT_OK) return status;
  }
  const Artifact &artifact = trainer ? trainer->artifact : given;
  lay_out_values(artifact, options, arena, trainer);
  lay_out_buffers(artifact.graph, plan, arena, trainer);
  lay_out_nodes(artifact, plan, arena, trainer);
  Team *team = lay_out_team(options, arena);
  if (trainer == nullptr) return TKT_OK;
  trainer->team = team;
  trainer->options = options;
  trainer->lanes = plan.lanes;
  trainer->part = part_of(options);
  trainer->progress.seed = options.seed;
  *made = trainer;
  return TKT_OK;
}

void reset(tkt_trainer &trainer) {
  const Artifact &artifact = trainer.artifact;
  const Values &start = trainer.options.start == TKT_START_TRAINED ? artifact.trained : artifact.init;
  const size_t trained = sizeof(float) * size_t(trainer.trained_count);
  copy_values(artifact, start, trainer.kernels->expand, trainer.values);
  if (trainer.gradients) memset(trainer.gradients, 0, trained);
  if (trainer.moment1) memset(trainer.moment1, 0, trained);
  if (trainer.moment2) memset(trainer.moment2, 0, trained);
  trainer.progress = {0, 0, trainer.progress.seed, 0, 1.0, 1.0};
}

}  // namespace tkt
