// A trained artifact: the trainer's own with the present values as TRAINED, all else byte for byte.
#pragma once

#include <stddef.h>

#include "core/trainer.h"

namespace tkt {

uint64_t export_bytes(const tkt_trainer &trainer);
tkt_status export_artifact(const tkt_trainer &trainer, void *artifact, size_t capacity, tkt_error *error);

// Checks that hold for every file written: room for it, and numbers that a reader will accept.
tkt_status check_room(const char *what, const void *to, size_t capacity, uint64_t needed, tkt_error *error);
tkt_status check_finite(const char *what, const tkt_trainer &trainer, const float *values, uint32_t count,
                        tkt_error *error);

}  // namespace tkt
