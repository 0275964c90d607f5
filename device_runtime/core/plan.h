// Where everything lies in the arena: one walk over the graph, made once to count and once to lay out.
#pragma once

#include "core/arena.h"
#include "core/artifact.h"
#include "core/memory_plan.h"
#include "ticket_runtime.h"

namespace tkt {

// Samples worked on at a time: `micro_batch`, or the whole batch.
uint32_t part_of(const tkt_options &options);

// True if weight gradients have no memory: plain SGD that nothing keeps from updating inside the backward pass.
bool updates_in_place(const tkt_options &options);

// A trainer without kernels, to be reset; `trainer` stays as it is while the arena only counts, which never fails. A pure
// function of artifact and options. Fails where a packed pattern is corrupt.
tkt_status lay_out(const Artifact &artifact, const tkt_options &options, const MemoryPlan &plan, Arena &arena,
                   tkt_trainer **trainer, tkt_error *error);

// Values as `options.start` says, everything else as at step 0; the seed stays.
void reset(tkt_trainer &trainer);

}  // namespace tkt
