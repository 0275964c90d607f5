// The table of operators, and the rules that hold for several of them.
#include "core/operators.h"

#include <string.h>

namespace tkt {
namespace {

bool same_shape(const Graph &graph, uint32_t a, uint32_t b) {
  Shape first = graph.shape(a), second = graph.shape(b);
  return memcmp(&first, &second, sizeof first) == 0;
}

const char *every_input_has_the_output_shape(const Artifact &artifact, const Node &node) {
  for (uint32_t i = 0; i < node.input_count; ++i) {
    if (!same_shape(artifact.graph, node.inputs[i], node.index + 1)) return "has inputs and output of unequal shape";
  }
  return nullptr;
}

const char *flatten_broken_rule(const Artifact &artifact, const Node &node) {
  Shape in = artifact.graph.shape(node.inputs[0]), out = artifact.graph.shape(node.index + 1);
  return out.rank == 1 && out.elements() == in.elements() ? nullptr : "does not keep the elements in one dimension";
}

// code, name, inputs, params (at least, at most), attrs, is_view, broken_rule, lay_out, forward, backward
constexpr Operator kOperators[] = {
    {1, "linear", 1, 1, 2, 0, false, linear_broken_rule, linear_lay_out, linear_forward, linear_backward},
    {2, "relu", 1, 0, 0, 0, false, every_input_has_the_output_shape, nullptr, relu_forward, relu_backward},
    {3, "flatten", 1, 0, 0, 0, true, flatten_broken_rule, nullptr, nullptr, flatten_backward},
    {4, "add", 2, 0, 0, 0, false, every_input_has_the_output_shape, nullptr, add_forward, add_backward},
};

}  // namespace

const Operator *find_operator(uint32_t code) {
  for (const Operator &op : kOperators) {
    if (op.code == code) return &op;
  }
  return nullptr;
}

const char *broken_rule(const Operator &op, const Artifact &artifact, const Node &node) {
  if (node.input_count != op.inputs) return "has a wrong number of inputs";
  if (node.param_count < op.min_params || node.param_count > op.max_params) return "has a wrong number of parameters";
  if (node.attr_count != op.attrs) return "has a wrong number of attributes";
  return op.broken_rule(artifact, node);
}

}  // namespace tkt
