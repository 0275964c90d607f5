// SGD (momentum, L2 weight decay) and Adam, as PyTorch defines them; state is an array of live weights.
#pragma once

#include "core/trainer.h"

namespace tkt {

// One update by the gradients; counts the step.
void update(tkt_trainer &trainer);

}  // namespace tkt
