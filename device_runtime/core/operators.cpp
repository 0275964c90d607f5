// The table of operators, and the rules that hold for several of them.
#include "core/operators.h"

#include "core/bytes.h"
#include "core/node_functions.h"

namespace tkt {
namespace {

bool same_shape(const Graph &graph, uint32_t a, uint32_t b) {
  Shape first = graph.shape(a), second = graph.shape(b);
  return memcmp(&first, &second, sizeof first) == 0;
}

constexpr uint32_t kFromOutput = kKeepsOutput | kOverInput | kGradientOverOutput;  // functions whose slope y tells
constexpr uint32_t kFromInput = kKeepsInputs | kGradientOverOutput;

// code, name, inputs, params, attrs, state, flags, rule, halos, lay_out, forward, backward, check_samples, commit
constexpr Operator kOperators[] = {
    {1, "linear", 1, 1, 1, 2, 0, 0, kKeepsInputs | kHeavy, linear_broken_rule, nullptr, linear_lay_out, linear_forward,
     linear_backward, nullptr, nullptr},
    {2, "relu", 1, 1, 0, 0, 0, 0, kFromOutput, shapes_are_equal, nullptr, nullptr, unary_forward, unary_backward,
     nullptr, nullptr},
    {3, "reshape", 1, 1, 0, 0, 0, 0, kView, reshape_broken_rule, nullptr, nullptr, reshape_forward, reshape_backward,
     nullptr, nullptr},
    {4, "add", 2, 2, 0, 0, 0, 0, kOverInput | kGradientOverOutput, shapes_are_equal, nullptr, nullptr, add_forward,
     add_backward, nullptr, nullptr},
    {5, "mul", 2, 2, 0, 0, 0, 0, kKeepsInputs, shapes_are_equal, nullptr, nullptr, mul_forward, mul_backward, nullptr,
     nullptr},
    {6, "concat", 2, 16, 0, 0, 0, 0, 0, concat_broken_rule, nullptr, nullptr, concat_forward, concat_backward, nullptr,
     nullptr},
    {7, "conv", 1, 1, 1, 2, 9, 0, kKeepsInputs | kHeavy, conv_broken_rule, conv_halos, conv_lay_out, conv_forward,
     conv_backward, nullptr, nullptr},
    {8, "batch_norm", 1, 1, 4, 4, 3, 2, kFromInput, batch_norm_broken_rule, nullptr, batch_norm_lay_out,
     batch_norm_forward, batch_norm_backward, nullptr, batch_norm_commit},
    {9, "layer_norm", 1, 1, 0, 2, 2, 0, kKeepsInputs, layer_norm_broken_rule, nullptr, layer_norm_lay_out,
     layer_norm_forward, layer_norm_backward, nullptr, nullptr},
    {10, "leaky_relu", 1, 1, 0, 0, 1, 0, kFromOutput, leaky_relu_broken_rule, nullptr, nullptr, unary_forward,
     unary_backward, nullptr, nullptr},
    {11, "relu6", 1, 1, 0, 0, 0, 0, kFromOutput, shapes_are_equal, nullptr, nullptr, unary_forward, unary_backward,
     nullptr, nullptr},
    {12, "hardswish", 1, 1, 0, 0, 0, 0, kFromInput, shapes_are_equal, nullptr, nullptr, unary_forward, unary_backward,
     nullptr, nullptr},
    {13, "sigmoid", 1, 1, 0, 0, 0, 0, kFromOutput, shapes_are_equal, nullptr, nullptr, unary_forward, unary_backward,
     nullptr, nullptr},
    {14, "tanh", 1, 1, 0, 0, 0, 0, kFromOutput, shapes_are_equal, nullptr, nullptr, unary_forward, unary_backward,
     nullptr, nullptr},
    {15, "gelu", 1, 1, 0, 0, 1, 0, kFromInput, gelu_broken_rule, nullptr, nullptr, unary_forward, unary_backward,
     nullptr, nullptr},
    {16, "max_pool", 1, 1, 0, 0, 6, 0, kKeepsInputs, max_pool_broken_rule, nullptr, nullptr, max_pool_forward,
     max_pool_backward, nullptr, nullptr},
    {17, "avg_pool", 1, 1, 0, 0, 7, 0, 0, avg_pool_broken_rule, nullptr, nullptr, avg_pool_forward, avg_pool_backward,
     nullptr, nullptr},
    {18, "global_avg_pool", 1, 1, 0, 0, 0, 0, 0, global_avg_pool_broken_rule, nullptr, nullptr, global_avg_pool_forward,
     global_avg_pool_backward, nullptr, nullptr},
    {19, "softmax", 1, 1, 0, 0, 0, 0, kKeepsOutput | kGradientOverOutput, softmax_broken_rule, nullptr, nullptr,
     softmax_forward, softmax_backward, nullptr, nullptr},
    {20, "embedding", 1, 1, 1, 1, 0, 0, kKeepsInputs | kHeavy, embedding_broken_rule, nullptr, nullptr,
     embedding_forward, embedding_backward, embedding_check_samples, nullptr},
    {21, "dropout", 1, 1, 0, 0, 1, 0, kOverInput | kGradientOverOutput, dropout_broken_rule, nullptr, nullptr,
     dropout_forward, dropout_backward, nullptr, nullptr},
};

}  // namespace

const char *shapes_are_equal(const Artifact &artifact, const Node &node) {
  for (uint32_t i = 0; i < node.input_count; ++i) {
    if (!same_shape(artifact.graph, node.inputs[i], node.index + 1)) return "has inputs and output of unequal shape";
  }
  return nullptr;
}

const Operator *find_operator(uint32_t code) {
  for (const Operator &op : kOperators) {
    if (op.code == code) return &op;
  }
  return nullptr;
}

const char *broken_rule(const Operator &op, const Artifact &artifact, const Node &node) {
  if (node.input_count < op.min_inputs || node.input_count > op.max_inputs) return "has a wrong number of inputs";
  if (node.param_count < op.min_params || node.param_count > op.max_params) return "has a wrong number of parameters";
  if (node.attr_count != op.attrs) return "has a wrong number of attributes";
  return op.broken_rule(artifact, node);
}

float attribute_f32(const uint32_t *attrs, uint32_t index) {
  return load<float>(reinterpret_cast<const uint8_t *>(attrs + index));
}

}  // namespace tkt
