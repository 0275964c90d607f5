// What depends on the step alone is computed here in f64 and rounded once; the rest is in the kernels.
#include "core/optimizer.h"

namespace tkt {
namespace {

void update_sgd(tkt_trainer &trainer) {
  const tkt_options &o = trainer.options;
  SgdStep step = {o.weight_decay, o.momentum, -o.learning_rate};
  trainer.kernels->sgd(step, trainer.values, trainer.gradients, trainer.moment1, trainer.padded_count);
}

void update_adam(tkt_trainer &trainer) {
  const tkt_options &o = trainer.options;
  Progress &p = trainer.progress;
  p.beta1_power *= double(o.beta1);
  p.beta2_power *= double(o.beta2);
  float step_size = float(double(o.learning_rate) / (1.0 - p.beta1_power));
  float inverse_sqrt = float(1.0 / __builtin_sqrt(1.0 - p.beta2_power));
  AdamStep step = {o.weight_decay, o.beta1,   o.beta2,      1.0f - o.beta1,
                   1.0f - o.beta2, step_size, inverse_sqrt, o.epsilon};
  trainer.kernels->adam(step, trainer.values, trainer.gradients, trainer.moment1, trainer.moment2,
                        trainer.padded_count);
}

}  // namespace

void update(tkt_trainer &trainer) {
  if (trainer.options.optimizer == TKT_ADAM) {
    update_adam(trainer);
  } else {
    update_sgd(trainer);
  }
  ++trainer.progress.step;
}

}  // namespace tkt
