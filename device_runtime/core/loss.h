// The losses, over the output buffer of the part of a batch at work: softmax cross-entropy against labels, with label
// smoothing and class weights; mean squared error and binary cross-entropy of logits against floats (count, outputs).
#pragma once

#include "core/trainer.h"

namespace tkt {

// Labels in range, floats finite, for binary cross-entropy in 0..1.
tkt_status check_targets(const tkt_trainer &trainer, const void *targets, uint32_t count, tkt_error *error);

// What the sum of a batch's losses is divided by: its samples, their class weights, or its elements.
double total_weight(const tkt_trainer &trainer, const void *targets, uint32_t count);

// The sum of losses in sample order; the gradient of sum / weight fills the output's gradient.
double training_loss(tkt_trainer &trainer, const void *targets, double weight);

// The sum over samples of the plain loss: no smoothing, no class weights; the mean over the outputs for the losses of
// floats. Adds to `*correct` the samples whose highest score is the label's (of equal scores the lowest class counts), or
// for binary cross-entropy those whose outputs are all on the right side; for mean squared error none.
double evaluation_loss(tkt_trainer &trainer, const void *targets, uint32_t *correct);

// (samples, outputs) row-major: probabilities, or the outputs themselves for mean squared error. False if one is not finite.
bool write_outputs(tkt_trainer &trainer, float *outputs);

}  // namespace tkt
