// A trainer before there is one: a checked artifact, options, and the arena they need. Over the budget a batch is worked
// through in smaller parts, or part of the network is computed twice; what needs the least then is what is planned.
#pragma once

#include "core/arena.h"
#include "core/artifact.h"
#include "core/memory_plan.h"
#include "ticket_runtime.h"

namespace tkt {

struct Planned {
  Artifact artifact;
  tkt_options options;  // with the micro_batch chosen
  MemoryPlan memory;
  Arena counted;
};

// A pure function of its arguments. The plan may be over the budget; whoever opens a trainer refuses it then.
tkt_status plan(const void *artifact, size_t artifact_bytes, const tkt_options *options, Planned *planned,
                tkt_error *error);

}  // namespace tkt
