// Checkpoints as bytes (FORMAT.md, "Checkpoint sections"): all that a trainer needs to go on as if never interrupted.
// Files, and their atomic replacement, are the caller's business.
#pragma once

#include <stddef.h>

#include "core/trainer.h"

namespace tkt {

uint64_t checkpoint_bytes(const tkt_trainer &trainer);
tkt_status save(const tkt_trainer &trainer, void *checkpoint, size_t capacity, tkt_error *error);

// Everything is checked before anything is changed.
tkt_status restore(tkt_trainer &trainer, const void *checkpoint, size_t size, tkt_error *error);

}  // namespace tkt
