// A checked artifact, read in place but for a packed pattern: recipe, input, graph, parameters and values (FORMAT.md,
// "Artifact sections").
// read_artifact() accepts nothing that breaks a rule there, so that whoever holds an Artifact checks nothing again.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "core/container.h"
#include "ticket_runtime.h"

namespace tkt {

enum SectionKind : uint32_t {
  kCard = 1,
  kRecipe,
  kInput,
  kGraph,
  kParams,
  kPattern,
  kInit,
  kTrained,
  kClassWeights,
  kOrigin,
  kPackedPattern,
  kPackedInit,
  kPackedTrained
};

enum LossCode : uint32_t { kCrossEntropy = 1, kMeanSquaredError, kBinaryCrossEntropy };

// What this build takes; the format allows kFormatNodes and kFormatParameters. Planning takes about 100 bytes of stack a node,
// reading a bit a parameter, so a build for a microcontroller takes less.
constexpr uint32_t kFormatNodes = 1024, kFormatParameters = 4096;
#if !defined(TKT_MAX_NODES)
#define TKT_MAX_NODES 1024
#endif
#if !defined(TKT_MAX_PARAMETERS)
#define TKT_MAX_PARAMETERS 4096
#endif
constexpr uint32_t kMaxNodes = TKT_MAX_NODES;
constexpr uint32_t kMaxParameters = TKT_MAX_PARAMETERS;
static_assert(kMaxNodes >= 1 && kMaxNodes <= kFormatNodes, "TKT_MAX_NODES");
static_assert(kMaxParameters >= 1 && kMaxParameters <= kFormatParameters, "TKT_MAX_PARAMETERS");

struct Recipe {
  uint32_t optimizer, batch;
  float learning_rate, momentum, weight_decay, beta1, beta2, epsilon;
  uint32_t epochs, nesterov;
  float label_smoothing, clip_norm;
  uint32_t schedule, warmup_steps, schedule_steps;
  float schedule_factor;
  uint32_t reserved[2];
};

struct Shape {
  uint32_t rank, extent[TKT_MAX_RANK];

  uint32_t elements() const { return extent[0] * extent[1] * extent[2] * extent[3]; }
};

// How raw samples become the input buffer.
struct InputSpec {
  Shape shape;
  uint32_t channels;
  const float *mean, *inverse_std;  // [channels]
};

// The pattern of one parameter. Dense, row-major: row_ptr is not set, and what is pruned stays 0. Else row_ptr and one of the
// columns are, for blocks of `block` rows that share their columns, which have 16 bits unless `block` is 1; the values of a
// block lie column by column. Of a packed pattern no pointer is set before it is unpacked.
struct Matrix {
  uint32_t rows, cols, stored, block;  // `stored` values
  bool sparse, masked;
  const uint32_t *row_ptr;    // [rows / block + 1], in columns
  const uint16_t *columns16;  // [stored / block]
  const uint32_t *columns32;  // likewise
  const uint32_t *pruned;     // nullptr, or [rows + 1] as row_ptr and then u16 columns, of the pruned weights

  bool dense() const { return !sparse; }
  bool is_vector(uint32_t elements) const { return dense() && !masked && rows == elements && cols == 1; }

  // The first value of rows [row, ..); `row` begins a block.
  uint32_t row_begin(uint32_t row) const { return dense() ? row * cols : block * row_ptr[row / block]; }

  // Of any row: its first column, how many it has, and the value and column of entry k.
  uint32_t column_begin(uint32_t row) const { return dense() ? 0 : row_ptr[row / block]; }
  uint32_t entries(uint32_t row) const { return dense() ? cols : row_ptr[row / block + 1] - row_ptr[row / block]; }
  uint32_t value(uint32_t row, uint32_t k) const {
    return dense() ? row * cols + k : block * (row_ptr[row / block] + k) + row % block;
  }
  uint32_t column(uint32_t row, uint32_t k) const {
    const uint32_t at = column_begin(row) + k;
    return columns16 ? columns16[at] : columns32 ? columns32[at] : at;
  }

  // Calls visit(value) for the stored weights of rows [first, last) that are pruned; row `first` begins with value 0.
  template <typename Visit>
  void for_each_pruned(uint32_t first, uint32_t last, Visit visit) const {
    if (pruned == nullptr) return;
    const uint16_t *columns = reinterpret_cast<const uint16_t *>(pruned + rows + 1);
    for (uint32_t row = first, begin = 0; row < last; ++row, begin += cols) {
      for (uint32_t k = pruned[row]; k < pruned[row + 1]; ++k) visit(begin + columns[k]);
    }
  }
};

struct Node {
  uint32_t index;  // it writes buffer index + 1
  uint16_t op, input_count, param_count, attr_count;
  const uint32_t *inputs, *params, *attrs;
};

struct Graph {
  const uint8_t *bytes;
  uint32_t size, buffer_count, node_count, loss;

  Shape shape(uint32_t buffer) const;
  uint32_t elements(uint32_t buffer) const { return shape(buffer).elements(); }
  uint32_t output_count() const { return elements(buffer_count - 1); }
};

// The nodes in order; stays inside GRAPH also while that is not checked yet.
class Nodes {
 public:
  explicit Nodes(const Graph &graph);
  Nodes(const Graph &graph, uint32_t index, uint32_t offset) : graph_(graph), index_(index), offset_(offset) {}
  bool next(Node *node);  // false at the end, and where the section is too short
  bool at_end() const;    // every node was read and nothing is left

  uint32_t index() const { return index_; }    // of the next node
  uint32_t offset() const { return offset_; }  // where it lies in GRAPH

 private:
  const Graph &graph_;
  uint32_t index_, offset_;
};

enum ValueKind : uint32_t { kWhole = 0, kFloat32, kFloat16, kDrawn };

// What a trainer may start from. Whole: f32[value_count] as a trainer has them; drawn: a seed and distributions; else of the live
// weights alone, in that order.
struct Values {
  const uint8_t *data;  // nullptr: there are none
  uint32_t kind;
};

struct Artifact {
  Container file;
  Recipe recipe;
  InputSpec input;
  Graph graph;
  Section params, pattern;  // a packed pattern has its bytes at once, and its data when it is unpacked
  Section packed_pattern;   // without its head
  const uint8_t *lines;     // u16[patterns] of it
  uint32_t longest_row;     // of a packed pattern: the most values in a row or block
  uint32_t parameter_count, value_count, trained_count;           // values before the first state parameter
  uint32_t live_count;                                            // values without those of pruned weights
  uint64_t dense_count, pruned_layer_live, pruned_layer_weights;  // the first and last are of the original network
  Values init, trained;
  const float *class_weights;  // [output_count], or nullptr

  Matrix matrix(uint32_t param) const;
};

// What no trainer may start from; the second is one that is not 0, of f32[value_count] or of moments, f32[trained_count].
bool has_negative_variance(const Artifact &artifact, const Values &values);
bool has_pruned_value(const Artifact &artifact, const uint8_t *values);

// As a trainer has them, f32[value_count], of an artifact that is unpacked; `expand` as in kernels.h.
void copy_values(const Artifact &artifact, const Values &values, void (*expand)(const uint16_t *, float *, size_t),
                 float *out);

// All but what a packed pattern holds, which is known when it is unpacked.
tkt_status read_artifact(const void *bytes, size_t size, Artifact *artifact, tkt_error *error);

// Decodes a packed pattern into the `pattern.bytes` at `to`, which must live as long as the artifact, row_ptr of each parameter
// included, and checks what depends on it. Reads each byte once and takes no more steps than a few thousand a byte.
tkt_status unpack_pattern(Artifact *artifact, void *to, tkt_error *error);

}  // namespace tkt
