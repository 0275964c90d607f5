// GRAPH: buffers, nodes and who reads what. The rules of single operators are in operators.cpp.
#include "core/artifact_parts.h"
#include "core/bytes.h"
#include "core/operators.h"

namespace tkt {
namespace {

constexpr uint32_t kHeadBytes = 16, kShapeBytes = 20, kNodeBytes = 8;
constexpr uint64_t kMaxBufferElements = 1u << 24;

uint64_t nodes_offset(uint32_t buffer_count) { return kHeadBytes + kShapeBytes * uint64_t(buffer_count); }

tkt_status check_head(const Section &section, Graph *graph, tkt_error *error) {
  if (section.bytes < kHeadBytes) return corrupt(error, "GRAPH has ", section.bytes, " bytes, too few");
  *graph = {section.data, section.bytes, load_u32(section.data), load_u32(section.data + 4),
            load_u32(section.data + 8)};
  if (graph->loss < kCrossEntropy || graph->loss > kBinaryCrossEntropy) {
    return fail(error, TKT_UNSUPPORTED_OP, "loss ", graph->loss,
                " is unknown to this runtime; update the runtime or export with 1 (cross-entropy), 2 (mean squared "
                "error) or 3 (binary cross-entropy)");
  }
  if (graph->node_count > kMaxNodes && graph->node_count <= kFormatNodes) {
    return too_large(error, "nodes", graph->node_count, kMaxNodes, "TKT_MAX_NODES");
  }
  if (graph->node_count < 1 || graph->node_count > kMaxNodes || graph->buffer_count != graph->node_count + 1 ||
      load_u32(section.data + 12) != 0 || nodes_offset(graph->buffer_count) > section.bytes) {
    return corrupt(error, "GRAPH has ", section.bytes, " bytes and says ", graph->node_count, " nodes and ",
                   graph->buffer_count, " buffers");
  }
  return TKT_OK;
}

tkt_status check_buffers(const Artifact &a, tkt_error *error) {
  for (uint32_t buffer = 0; buffer < a.graph.buffer_count; ++buffer) {
    Shape shape;
    if (!read_shape(a.graph.bytes + nodes_offset(buffer), &shape)) {
      return corrupt(error, "buffer ", buffer, ": the shape breaks a rule of the format");
    }
  }
  Shape input = a.graph.shape(0), output = a.graph.shape(a.graph.buffer_count - 1);
  if (memcmp(&input, &a.input.shape, sizeof input) != 0) return corrupt(error, "buffer 0 has not the shape of INPUT");
  const uint32_t least = a.graph.loss == kCrossEntropy ? 2 : 1;
  if (output.rank != 1 || output.elements() < least) {
    return corrupt(error, "the output has rank ", output.rank, " and ", output.elements(),
                   " elements; rank 1 and at least ", least, " are needed by the loss");
  }
  return TKT_OK;
}

using Buffers = NumberSet<kMaxNodes + 1>;
using Parameters = NumberSet<kMaxParameters>;

tkt_status check_node(const Artifact &a, const Node &node, Buffers *read, Parameters *used, Parameters *state,
                      tkt_error *error) {
  const Operator *op = find_operator(node.op);
  if (op == nullptr) {
    return fail(error, TKT_UNSUPPORTED_OP, "operator ", unsigned(node.op), " of node ", node.index,
                " is unknown to this runtime; update the runtime or export without it");
  }
  for (uint32_t i = 0; i < node.input_count; ++i) {
    if (node.inputs[i] > node.index) {
      return corrupt(error, "node ", node.index, " reads buffer ", node.inputs[i], ", which is written later");
    }
    read->add(node.inputs[i]);
  }
  for (uint32_t i = 0; i < node.param_count; ++i) {
    uint32_t param = node.params[i];
    if (param >= a.parameter_count || used->has(param)) {
      return corrupt(error, "node ", node.index, " uses parameter ", param, ", which is in use or does not exist");
    }
    used->add(param);
  }
  if (node.param_count >= op->min_params && node.param_count <= op->max_params) {
    for (uint32_t i = 0; i < node.param_count; ++i) {
      if (i + op->state_params >= node.param_count) state->add(node.params[i]);
    }
  }
  if (const char *rule = broken_rule(*op, a, node)) {
    return corrupt(error, "node ", node.index, " (", op->name, ") ", rule);
  }
  return TKT_OK;
}

// State parameters come last.
tkt_status count_trained(Artifact *a, const Parameters &state, tkt_error *error) {
  a->trained_count = 0;
  bool state_seen = false;
  for (uint32_t param = 0; param < a->parameter_count; ++param) {
    if (state.has(param)) {
      state_seen = true;
    } else if (state_seen) {
      return corrupt(error, "parameter ", param, " is trained, but comes after a state parameter");
    } else {
      a->trained_count += a->matrix(param).stored;
    }
  }
  return TKT_OK;  // trained_count > 0: whoever has state has parameters that are trained
}

}  // namespace

bool read_shape(const uint8_t *record, Shape *shape) {
  memcpy(shape, record, sizeof *shape);
  if (shape->rank < 1 || shape->rank > TKT_MAX_RANK) return false;
  uint64_t elements = 1;
  for (uint32_t axis = 0; axis < TKT_MAX_RANK; ++axis) {
    uint32_t extent = shape->extent[axis];
    elements *= extent;
    bool allowed = axis < shape->rank ? extent >= 1 : extent == 1;
    if (!allowed || elements > kMaxBufferElements) return false;
  }
  return true;
}

Shape Graph::shape(uint32_t buffer) const {
  Shape shape;
  memcpy(&shape, bytes + nodes_offset(buffer), sizeof shape);
  return shape;
}

Nodes::Nodes(const Graph &graph) : Nodes(graph, 0, static_cast<uint32_t>(nodes_offset(graph.buffer_count))) {}

bool Nodes::next(Node *node) {
  if (index_ == graph_.node_count || graph_.size - offset_ < kNodeBytes) return false;
  const uint8_t *at = graph_.bytes + offset_;
  *node = {index_, load_u16(at), load_u16(at + 2), load_u16(at + 4), load_u16(at + 6), nullptr, nullptr, nullptr};
  uint32_t words = uint32_t(node->input_count) + node->param_count + node->attr_count;
  if ((graph_.size - offset_ - kNodeBytes) / 4 < words) return false;
  node->inputs = reinterpret_cast<const uint32_t *>(at + kNodeBytes);
  node->params = node->inputs + node->input_count;
  node->attrs = node->params + node->param_count;
  offset_ += kNodeBytes + 4 * words;
  ++index_;
  return true;
}

bool Nodes::at_end() const { return index_ == graph_.node_count && offset_ == graph_.size; }

bool is_variance(const Artifact &artifact, uint32_t param) {
  Node node;
  for (Nodes nodes(artifact.graph); nodes.next(&node);) {
    const uint32_t state = find_operator(node.op)->state_params;
    if (state > 0 && node.params[node.param_count - 1] == param) return true;
  }
  return false;
}

tkt_status read_graph(Artifact *artifact, tkt_error *error) {
  Artifact &a = *artifact;
  if (tkt_status status = check_head(a.file.find(kGraph), &a.graph, error)) return status;
  if (tkt_status status = check_buffers(a, error)) return status;
  Buffers read;
  Parameters used, state;
  Node node;
  Nodes nodes(a.graph);
  while (nodes.next(&node)) {
    if (tkt_status status = check_node(a, node, &read, &used, &state, error)) return status;
  }
  if (!nodes.at_end()) return corrupt(error, "GRAPH does not end with its last node");
  for (uint32_t buffer = 0; buffer + 1 < a.graph.buffer_count; ++buffer) {
    if (!read.has(buffer)) return corrupt(error, "buffer ", buffer, " is read by no node");
  }
  for (uint32_t param = 0; param < a.parameter_count; ++param) {
    if (!used.has(param)) return corrupt(error, "parameter ", param, " is used by no node");
  }
  return count_trained(&a, state, error);
}

}  // namespace tkt
