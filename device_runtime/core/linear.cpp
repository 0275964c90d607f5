// linear: y = W x + b over live weights only. The input's gradient is a product with the transposed pattern; with one lane
// it is scattered by the rows of W, which needs none.
#include "core/gradients.h"
#include "core/memory_plan.h"
#include "core/node_functions.h"
#include "core/step.h"
#include "core/threads.h"
#include "core/transposed.h"

namespace tkt {

const char *linear_broken_rule(const Artifact &artifact, const Node &node) {
  Shape in = artifact.graph.shape(node.inputs[0]), out = artifact.graph.shape(node.index + 1);
  if (in.rank != 1 || out.rank != 1) return "needs input and output of rank 1";
  Matrix weight = artifact.matrix(node.params[0]);
  if (weight.rows != out.elements() || weight.cols != in.elements()) return "has a weight of another shape";
  if (node.param_count == 1) return nullptr;
  return artifact.matrix(node.params[1]).is_vector(weight.rows) ? nullptr : "has a bias of another shape";
}

void *linear_lay_out(const Artifact &artifact, const Node &node, const MemoryPlan &plan, Arena &arena) {
  const Matrix w = artifact.matrix(node.params[0]);
  if (!plan.needs_gradient[node.inputs[0]] || plan.scatter || w.dense()) return nullptr;
  const Transposition swapped = {w.cols, w.rows, w.cols,
                                 [](const void *, uint32_t row, uint32_t column, uint32_t *to_row, uint32_t *code) {
                                   *to_row = column;
                                   *code = row;
                                 },
                                 nullptr};
  return lay_out_transposed(w, swapped, arena);
}

void linear_forward(tkt_trainer &trainer, const NodeState &node) {
  const Parameter &weight = trainer.params[node.params[0]];
  const float *bias = node.param_count == 2 ? trainer.params[node.params[1]].values : nullptr;
  const Tensor x = trainer.data(node.inputs[0]), y = trainer.data(node.output);
  rows_in_parts(trainer, weight.matrix, trainer.groups, [&](uint32_t first, uint32_t last) {
    trainer.lane_kernels->product(weight.matrix, weight.values, bias, x, y, trainer.groups, first, last);
  });
}

namespace {

void input_gradient(tkt_trainer &trainer, const NodeState &node, const Parameter &weight) {
  const LaneKernels &kernels = *trainer.lane_kernels;
  const Tensor dy = trainer.gradient(node.output);
  const uint32_t groups = trainer.groups;
  if (trainer.lanes == 1) {
    const Contribution dx = added_contribution(trainer, node.inputs[0]);
    if (dx.wanted) kernels.scatter_product(weight.matrix, weight.values, dy, dx.into, groups);
    return;
  }
  const Contribution dx = contribution(trainer, node.inputs[0]);
  if (!dx.wanted) return;
  const Transposed *transposed = static_cast<const Transposed *>(node.own);
  const uint32_t cols = weight.matrix.cols;
  const uint64_t cost = uint64_t(weight.matrix.stored) * groups;
  if (transposed == nullptr) {
    return range_in_parts(trainer, cols, kRowsOfPart, cost, [&](uint32_t first, uint32_t last) {
      kernels.dense_transposed_product(weight.matrix, weight.values, dy, dx.into, groups, dx.accumulate, first, last);
    });
  }
  in_parts(trainer, cost, [&](uint32_t part, uint32_t parts) {
    const auto begin_of = [&](uint32_t row) { return transposed->row_ptr[row]; };
    const uint32_t first = part_of_rows(cols, 1, part, parts, begin_of);
    const uint32_t last = part_of_rows(cols, 1, part + 1, parts, begin_of);
    kernels.transposed_product(*transposed, weight.values, dy, dx.into, groups, dx.accumulate, first, last);
  });
}

}  // namespace

// The input's gradient first: it needs the weights as they were.
void linear_backward(tkt_trainer &trainer, const NodeState &node) {
  const Parameter &weight = trainer.params[node.params[0]];
  const LaneKernels &kernels = *trainer.lane_kernels;
  const Tensor x = trainer.data(node.inputs[0]), dy = trainer.gradient(node.output);
  const uint32_t groups = trainer.groups;
  input_gradient(trainer, node, weight);
  use_gradients(trainer, node.params[0], groups, [&](uint32_t first, uint32_t last, float *out) {
    kernels.weight_gradient(weight.matrix, dy, x, groups, first, last, out);
  });
  if (node.param_count == 1) return;
  use_gradients(trainer, node.params[1], groups,
                [&](uint32_t first, uint32_t last, float *out) { kernels.channel_sums(dy, groups, first, last, out); });
}

}  // namespace tkt
