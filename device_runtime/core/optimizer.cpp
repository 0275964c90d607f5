// What depends on the step alone is computed here in f64 and rounded once; the rest is in the kernels.
#include "core/optimizer.h"

#include "core/math.h"
#include "core/threads.h"

namespace tkt {
namespace {

void update_sgd(tkt_trainer &trainer) {
  const tkt_options &o = trainer.options;
  const SgdStep step = {o.weight_decay, o.momentum, -trainer.learning_rate, o.nesterov != 0};
  range_in_parts(trainer, trainer.trained_count, 64, trainer.trained_count / 4, [&](uint32_t first, uint32_t last) {
    trainer.kernels->sgd(step, trainer.values + first, trainer.gradients + first,
                         trainer.moment1 ? trainer.moment1 + first : nullptr, last - first);
  });
}

void update_adam(tkt_trainer &trainer) {
  const tkt_options &o = trainer.options;
  Progress &p = trainer.progress;
  p.beta1_power *= double(o.beta1);
  p.beta2_power *= double(o.beta2);
  const bool decoupled = o.optimizer == TKT_ADAMW;
  const float step_size = float(double(trainer.learning_rate) / (1.0 - p.beta1_power));
  const float inverse_sqrt = float(1.0 / sqrt_f64(1.0 - p.beta2_power));
  const float keep = decoupled ? float(1.0 - double(trainer.learning_rate) * double(o.weight_decay)) : 1.0f;
  const AdamStep step = {decoupled ? 0.0f : o.weight_decay,
                         keep,
                         o.beta1,
                         o.beta2,
                         1.0f - o.beta1,
                         1.0f - o.beta2,
                         step_size,
                         inverse_sqrt,
                         o.epsilon};
  range_in_parts(trainer, trainer.trained_count, 64, trainer.trained_count, [&](uint32_t first, uint32_t last) {
    trainer.kernels->adam(step, trainer.values + first, trainer.gradients + first, trainer.moment1 + first,
                          trainer.moment2 + first, last - first);
  });
}

bool gradients_are_finite(const tkt_trainer &trainer) {
  bool finite = true;
  range_in_parts(trainer, trainer.trained_count, 64, trainer.trained_count / 16, [&](uint32_t first, uint32_t last) {
    const bool fine = trainer.kernels->all_finite(trainer.gradients + first, last - first);
    if (!fine) __atomic_store_n(&finite, false, __ATOMIC_RELAXED);
  });
  return finite;
}

// Scales the gradients down to a norm of clip_norm. False if the norm is not finite.
bool clip(tkt_trainer &trainer) {
  double sum = 0;
  for (uint32_t i = 0; i < trainer.trained_count; ++i)
    sum += double(trainer.gradients[i]) * double(trainer.gradients[i]);
  const double norm = sqrt_f64(sum), factor = double(trainer.options.clip_norm) / (norm + 1e-6);
  if (!(norm - norm == 0)) return false;
  if (factor < 1.0) trainer.kernels->scale(float(factor), trainer.gradients, trainer.trained_count);
  return true;
}

}  // namespace

float learning_rate_at(const tkt_options &o, uint64_t step) {
  if (step < o.warmup_steps) return float(double(o.learning_rate) * (double(step) + 1.0) / double(o.warmup_steps));
  const uint64_t at = step - o.warmup_steps;
  const double end = double(o.schedule_factor);
  double factor = 1.0;
  if (o.schedule == TKT_SCHEDULE_STEP) {
    double power = end;
    for (uint64_t drops = at / o.schedule_steps; drops > 0; drops /= 2, power *= power) {
      if (drops % 2 != 0) factor *= power;
    }
  } else if (o.schedule != TKT_SCHEDULE_CONSTANT) {
    const double done = at >= o.schedule_steps ? 1.0 : double(at) / double(o.schedule_steps);
    const double left = o.schedule == TKT_SCHEDULE_COSINE ? 0.5 * (1.0 + cos_pi(done)) : 1.0 - done;
    factor = end + (1.0 - end) * left;
  }
  return float(double(o.learning_rate) * factor);
}

bool update(tkt_trainer &trainer) {
  if (!gradients_are_finite(trainer)) return false;
  if (trainer.options.clip_norm > 0 && !clip(trainer)) return false;
  if (trainer.options.optimizer == TKT_SGD) {
    update_sgd(trainer);
  } else {
    update_adam(trainer);
  }
  return true;
}

void update_in_place(tkt_trainer &trainer, float *values, const float *gradients, uint32_t count) {
  if (!trainer.kernels->all_finite(gradients, count)) {
    __atomic_store_n(&trainer.diverged, true, __ATOMIC_RELAXED);  // several threads may say so
    return;
  }
  const SgdStep step = {trainer.options.weight_decay, 0, -trainer.learning_rate, false};
  trainer.kernels->sgd(step, values, gradients, nullptr, count);
}

}  // namespace tkt
