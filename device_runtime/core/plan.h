// Where everything lies in the arena: one walk over the graph, made once to count and once to lay out.
#pragma once

#include "core/arena.h"
#include "core/artifact.h"
#include "ticket_runtime.h"

namespace tkt {

// The trainer at its start values; nullptr if the arena only counts. A pure function of artifact and options.
tkt_trainer *lay_out(const Artifact &artifact, const tkt_options &options, Arena &arena);

// Values as `options.start` says, everything else as at step 0; the seed stays.
void reset(tkt_trainer &trainer);

}  // namespace tkt
