// SGD (momentum, Nesterov, L2 weight decay), Adam and AdamW, as PyTorch defines them, with clipping by norm and a schedule
// of the learning rate. State is an array of live weights.
#pragma once

#include "core/trainer.h"

namespace tkt {

// The learning rate of update `step` (0, 1, ..).
float learning_rate_at(const tkt_options &options, uint64_t step);

// One update by the stored gradients. False, and nothing is changed, if one of them is not finite.
bool update(tkt_trainer &trainer);

// Plain SGD of some values; what is not finite is left out, and trainer.diverged tells.
void update_in_place(tkt_trainer &trainer, float *values, const float *gradients, uint32_t count);

}  // namespace tkt
