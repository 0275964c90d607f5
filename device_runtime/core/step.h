// A training step and its parts: samples in, forward, loss, backward, update. And evaluation and prediction.
#pragma once

#include "core/trainer.h"

namespace tkt {

// Where an operator's backward puts the gradient of one input: the first contribution of a backward pass is stored,
// the others are added.
struct Contribution {
  Tensor into;
  bool wanted, accumulate;
};
Contribution contribution(tkt_trainer &trainer, uint32_t buffer);

// The same for what only adds: the first contribution finds zeros.
Contribution added_contribution(tkt_trainer &trainer, uint32_t buffer);

// Zeros around the elements, in all groups at work.
void clear_halo(const tkt_trainer &trainer, const Tensor &t);

// Labels (cross-entropy) or floats (count, outputs), as the loss of the ticket asks for.
tkt_status compute_gradients(tkt_trainer &trainer, const float *samples, const void *targets, uint32_t count,
                             float *loss, tkt_error *error);
tkt_status train_step(tkt_trainer &trainer, const float *samples, const void *targets, uint32_t count, float *loss,
                      tkt_error *error);
tkt_status evaluate(tkt_trainer &trainer, const float *samples, const void *targets, uint32_t count, double *loss_sum,
                    uint32_t *correct, tkt_error *error);
tkt_status predict(tkt_trainer &trainer, const float *samples, uint32_t count, float *outputs, tkt_error *error);

}  // namespace tkt
