// The functions that rows of the operator table point to, by the file that has them.
#pragma once

#include "core/operators.h"

namespace tkt {

#define TKT_RULE(name) const char *name(const Artifact &artifact, const Node &node)
#define TKT_RUN(name) void name(tkt_trainer &trainer, const NodeState &node)
#define TKT_LAY_OUT(name) void *name(const Artifact &artifact, const Node &node, const MemoryPlan &plan, Arena &arena)
#define TKT_HALOS(name) void name(const Artifact &artifact, const Node &node, Halo *input, Halo *output_gradient)

// linear.cpp
TKT_RULE(linear_broken_rule);
TKT_LAY_OUT(linear_lay_out);
TKT_RUN(linear_forward);
TKT_RUN(linear_backward);

// conv.cpp
TKT_RULE(conv_broken_rule);
TKT_HALOS(conv_halos);
TKT_LAY_OUT(conv_lay_out);
TKT_RUN(conv_forward);
TKT_RUN(conv_backward);

// elementwise.cpp
TKT_RUN(unary_forward);
TKT_RUN(unary_backward);
TKT_RULE(leaky_relu_broken_rule);
TKT_RULE(gelu_broken_rule);
TKT_RUN(add_forward);
TKT_RUN(add_backward);
TKT_RUN(mul_forward);
TKT_RUN(mul_backward);
TKT_RULE(dropout_broken_rule);
TKT_RUN(dropout_forward);
TKT_RUN(dropout_backward);

// shape.cpp
TKT_RULE(reshape_broken_rule);
TKT_RUN(reshape_forward);
TKT_RUN(reshape_backward);
TKT_RULE(concat_broken_rule);
TKT_RUN(concat_forward);
TKT_RUN(concat_backward);

// norm.cpp
TKT_RULE(batch_norm_broken_rule);
TKT_LAY_OUT(batch_norm_lay_out);
TKT_RUN(batch_norm_forward);
TKT_RUN(batch_norm_backward);
TKT_RUN(batch_norm_commit);
TKT_RULE(layer_norm_broken_rule);
TKT_LAY_OUT(layer_norm_lay_out);
TKT_RUN(layer_norm_forward);
TKT_RUN(layer_norm_backward);
TKT_RULE(softmax_broken_rule);
TKT_RUN(softmax_forward);
TKT_RUN(softmax_backward);

// pool.cpp
TKT_RULE(max_pool_broken_rule);
TKT_RUN(max_pool_forward);
TKT_RUN(max_pool_backward);
TKT_RULE(avg_pool_broken_rule);
TKT_RUN(avg_pool_forward);
TKT_RUN(avg_pool_backward);
TKT_RULE(global_avg_pool_broken_rule);
TKT_RUN(global_avg_pool_forward);
TKT_RUN(global_avg_pool_backward);

// embedding.cpp
TKT_RULE(embedding_broken_rule);
TKT_RUN(embedding_forward);
TKT_RUN(embedding_backward);
tkt_status embedding_check_samples(const tkt_trainer &trainer, const NodeState &node, uint64_t first_sample,
                                   tkt_error *error);

#undef TKT_RULE
#undef TKT_RUN
#undef TKT_LAY_OUT
#undef TKT_HALOS

}  // namespace tkt
