// embedding: rows of a table by the whole numbers that the raw samples are. A pruned table has zeros where nothing is live.
#include <string.h>

#include "core/error.h"
#include "core/gradients.h"
#include "core/node_functions.h"

namespace tkt {
namespace {

// Calls visit(entry, element of y) for each live entry of a row of the table; y's elements begin at `first`.
template <typename Visit>
void for_each_live(const Matrix &m, uint32_t row, Visit visit) {
  for (uint32_t k = 0; k < m.entries(row); ++k) visit(m.value(row, k), m.column(row, k));
}

bool is_normalised(const InputSpec &input) {
  bool normalised = false;
  for (uint32_t c = 0; c < input.channels; ++c) {
    normalised |= input.mean[c] < 0 || input.mean[c] > 0 || input.inverse_std[c] < 1 || input.inverse_std[c] > 1;
  }
  return normalised;
}

}  // namespace

const char *embedding_broken_rule(const Artifact &artifact, const Node &node) {
  const Shape in = artifact.graph.shape(node.inputs[0]), out = artifact.graph.shape(node.index + 1);
  const Matrix weight = artifact.matrix(node.params[0]);
  if (node.inputs[0] != 0) return "reads another buffer than the samples";
  if (in.rank != 1 || out.rank != 2 || out.extent[0] != in.extent[0])
    return "needs an input of rank 1 and one row each";
  if (weight.cols != out.extent[1] || weight.rows > (1u << 24)) return "has a weight of another shape";
  if (weight.block > 1 || weight.masked) return "has a weight in blocks or with a mask";
  return is_normalised(artifact.input) ? "reads samples that are normalised" : nullptr;
}

// Of what was taken in, which becomes places in the table: the caller's memory may have changed since.
tkt_status embedding_check_samples(const tkt_trainer &trainer, const NodeState &node, uint64_t first_sample,
                                   tkt_error *error) {
  const uint32_t entries = trainer.params[node.params[0]].matrix.rows, lanes = trainer.lanes;
  const Tensor input = trainer.data(0);
  for (uint32_t s = 0; s < trainer.samples; ++s) {
    const float *sample = input.data + s / lanes * input.group_stride + s % lanes;
    for (uint32_t t = 0; t < input.place.elements(); ++t) {
      const float x = sample[size_t(t) * lanes];
      if (x >= 0 && x < float(entries) && x == float(uint32_t(x))) continue;
      return fail(error, TKT_INVALID_INPUT, "samples[", first_sample + s, "] has ", double(x), " at element ", t,
                  ", but an embedding takes whole numbers from 0 to ", entries - 1);
    }
  }
  return TKT_OK;
}

void embedding_forward(tkt_trainer &trainer, const NodeState &node) {
  const Parameter &table = trainer.params[node.params[0]];
  const Tensor x = trainer.data(node.inputs[0]), y = trainer.data(node.output);
  const uint32_t lanes = trainer.lanes, width = y.place.length;
  for (uint32_t g = 0; g < trainer.groups; ++g) {
    for (uint32_t t = 0; t < y.place.channels; ++t) {
      float *out = y.data + g * y.group_stride + size_t(y.place.at(t, 0, 0)) * lanes;
      const float *entry = x.data + g * x.group_stride + size_t(t) * lanes;
      if (!table.matrix.dense()) memset(out, 0, size_t(width) * lanes * sizeof(float));
      for (uint32_t l = 0; l < lanes; ++l) {
        for_each_live(table.matrix, uint32_t(entry[l]),
                      [&](uint32_t k, uint32_t column) { out[size_t(column) * lanes + l] = table.values[k]; });
      }
    }
  }
}

void embedding_backward(tkt_trainer &trainer, const NodeState &node) {
  const Matrix &m = trainer.params[node.params[0]].matrix;
  const Tensor x = trainer.data(node.inputs[0]), dy = trainer.gradient(node.output);
  const uint32_t lanes = trainer.lanes;
  use_gradients(trainer, node.params[0], trainer.samples, [&](uint32_t first, uint32_t last, float *out) {
    const uint32_t start = m.row_begin(first);
    memset(out, 0, (m.row_begin(last) - start) * sizeof(float));
    for (uint32_t s = 0; s < trainer.samples; ++s) {
      const uint32_t g = s / lanes, l = s % lanes;
      for (uint32_t t = 0; t < dy.place.channels; ++t) {
        const uint32_t row = uint32_t(x.data[g * x.group_stride + size_t(t) * lanes + l]);
        if (row < first || row >= last) continue;
        const float *gradient = dy.data + g * dy.group_stride + size_t(dy.place.at(t, 0, 0)) * lanes + l;
        for_each_live(m, row, [&](uint32_t k, uint32_t column) {
          out[k - start] = out[k - start] + gradient[size_t(column) * lanes];
        });
      }
    }
  });
}

}  // namespace tkt
