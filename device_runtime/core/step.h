// A training step and its parts: samples in, forward, loss, backward, update. And evaluation and prediction.
#pragma once

#include "core/trainer.h"

namespace tkt {

// Where an operator's backward puts the gradient of one input: the first contribution of a backward pass is stored,
// the others are added. `into` is nullptr if nobody asks for it.
struct Contribution {
  float *into;
  bool accumulate;
};
Contribution contribution(tkt_trainer &trainer, uint32_t buffer);

tkt_status compute_gradients(tkt_trainer &trainer, const float *samples, const int32_t *labels, uint32_t count,
                             float *loss, tkt_error *error);
tkt_status train_step(tkt_trainer &trainer, const float *samples, const int32_t *labels, uint32_t count, float *loss,
                      tkt_error *error);
tkt_status evaluate(tkt_trainer &trainer, const float *samples, const int32_t *labels, uint32_t count, double *loss_sum,
                    uint32_t *correct, tkt_error *error);
tkt_status predict(tkt_trainer &trainer, const float *samples, uint32_t count, float *probabilities, tkt_error *error);

}  // namespace tkt
