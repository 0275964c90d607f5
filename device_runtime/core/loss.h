// Softmax cross-entropy over the output buffer of the batch at work.
#pragma once

#include "core/trainer.h"

namespace tkt {

// The sum over the samples, in nats, in sample order. With `gradient`, that of the mean fills the output's gradient.
double cross_entropy(tkt_trainer &trainer, const int32_t *labels, bool gradient);

// Samples whose highest score is the label's; of equal scores the lowest class counts.
uint32_t count_correct(tkt_trainer &trainer, const int32_t *labels);

// (samples, classes) row-major. False if a score is not finite.
bool write_probabilities(tkt_trainer &trainer, float *probabilities);

}  // namespace tkt
