// linear: y = W x + b over live weights only. The input's gradient is a product with the transposed pattern, which is
// built once; its values are copied anew in every backward pass, since reading them through an index costs more.
#include "core/operators.h"
#include "core/step.h"
#include "core/trainer.h"

namespace tkt {
namespace {

// W^T: row c holds the live weights of column c, in the order of W's rows.
struct Transposed {
  Matrix matrix;
  const uint32_t *from;  // [nnz] where in W's values each value comes from
  float *values;         // [nnz]
};

template <typename Column, typename Row>
void fill_transposed(const Matrix &w, const Column *columns, uint32_t *starts, Row *rows, uint32_t *from) {
  for (uint32_t k = 0; k < w.nnz; ++k) ++starts[columns[k] + 1];
  for (uint32_t c = 0; c < w.cols; ++c) starts[c + 1] += starts[c];
  for (uint32_t r = 0; r < w.rows; ++r) {
    for (uint32_t k = w.row_ptr[r]; k < w.row_ptr[r + 1]; ++k) {
      uint32_t at = starts[columns[k]]++;
      rows[at] = static_cast<Row>(r);
      from[at] = k;
    }
  }
  for (uint32_t c = w.cols; c > 0; --c) starts[c] = starts[c - 1];  // each had moved to the next one's start
  starts[0] = 0;
}

template <typename Row>
void fill_transposed(const Matrix &w, uint32_t *starts, Row *rows, uint32_t *from) {
  if (w.columns16) return fill_transposed(w, w.columns16, starts, rows, from);
  fill_transposed(w, w.columns32, starts, rows, from);
}

}  // namespace

const char *linear_broken_rule(const Artifact &artifact, const Node &node) {
  Shape in = artifact.graph.shape(node.inputs[0]), out = artifact.graph.shape(node.index + 1);
  if (in.rank != 1 || out.rank != 1) return "needs input and output of rank 1";
  Matrix weight = artifact.matrix(node.params[0]);
  if (weight.rows != out.elements() || weight.cols != in.elements()) return "has a weight of another shape";
  if (node.param_count == 1) return nullptr;
  Matrix bias = artifact.matrix(node.params[1]);
  return bias.dense() && bias.rows == weight.rows && bias.cols == 1 ? nullptr : "has a bias of another shape";
}

void *linear_lay_out(const Artifact &artifact, const Node &node, bool input_gradient, Arena &arena) {
  const Matrix w = artifact.matrix(node.params[0]);
  if (!input_gradient || w.dense()) return nullptr;
  const bool narrow = w.rows <= 65536;
  Transposed *t = arena.take<Transposed>(kIndex, 1);
  uint32_t *starts = arena.take<uint32_t>(kIndex, uint64_t(w.cols) + 1);
  uint32_t *from = arena.take<uint32_t>(kIndex, w.nnz);
  float *values = arena.take<float>(kIndex, w.nnz);
  uint16_t *rows16 = narrow ? arena.take<uint16_t>(kIndex, w.nnz) : nullptr;
  uint32_t *rows32 = narrow ? nullptr : arena.take<uint32_t>(kIndex, w.nnz);
  if (t == nullptr) return nullptr;
  if (narrow) fill_transposed(w, starts, rows16, from);
  if (!narrow) fill_transposed(w, starts, rows32, from);
  *t = {{w.cols, w.rows, w.nnz, starts, rows16, rows32}, from, values};
  return t;
}

void linear_forward(tkt_trainer &trainer, const NodeState &node) {
  const Parameter &weight = trainer.params[node.params[0]];
  const float *bias = node.param_count == 2 ? trainer.params[node.params[1]].values : nullptr;
  trainer.kernels->product(weight.matrix, weight.values, bias, trainer.buffers[node.inputs[0]].data,
                           trainer.buffers[node.output].data, trainer.groups, false);
}

void linear_backward(tkt_trainer &trainer, const NodeState &node) {
  const Parameter &weight = trainer.params[node.params[0]];
  const Kernels &kernels = *trainer.kernels;
  const float *x = trainer.buffers[node.inputs[0]].data, *dy = trainer.buffers[node.output].gradient;
  kernels.weight_gradient(weight.matrix, dy, x, trainer.samples, weight.gradients);
  if (node.param_count == 2) {
    kernels.bias_gradient(weight.matrix.rows, dy, trainer.samples, trainer.params[node.params[1]].gradients);
  }
  Contribution dx = contribution(trainer, node.inputs[0]);
  if (dx.into == nullptr) return;
  const Transposed *t = static_cast<const Transposed *>(node.own);
  if (t == nullptr) {
    kernels.dense_transposed_product(weight.matrix, weight.values, dy, dx.into, trainer.groups, dx.accumulate);
    return;
  }
  for (uint32_t k = 0; k < t->matrix.nnz; ++k) t->values[k] = weight.values[t->from[k]];
  kernels.product(t->matrix, t->values, nullptr, dy, dx.into, trainer.groups, dx.accumulate);
}

}  // namespace tkt
