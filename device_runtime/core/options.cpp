// Ranges are written so that NaN fails them.
#include "core/options.h"

#include "core/error.h"
#include "core/threads.h"

namespace tkt {
namespace {

constexpr uint32_t kMaxBatch = 65536;
constexpr float kMaxFloat = 3.40282347e38f;
#if defined(TKT_THREADS)
constexpr uint32_t kMostThreads = kMaxThreads;
#else
constexpr uint32_t kMostThreads = 1;  // this build has no others
#endif

tkt_status bad(tkt_error *error, const char *name, float value, const char *rule) {
  return fail(error, TKT_INVALID_INPUT, name, " is ", double(value), ", but must be ", rule);
}

tkt_status check_finite(const char *name, float value, tkt_error *error) {
  return value >= 0 && value <= kMaxFloat ? TKT_OK : bad(error, name, value, "finite and at least 0");
}

tkt_status check_floats(const tkt_options &o, tkt_error *error) {
  const char *below_one = "at least 0 and below 1";
  if (tkt_status status = check_learning_rate(o.learning_rate, error)) return status;
  if (tkt_status status = check_finite("weight_decay", o.weight_decay, error)) return status;
  if (!(o.momentum >= 0 && o.momentum < 1)) return bad(error, "momentum", o.momentum, below_one);
  if (!(o.beta1 >= 0 && o.beta1 < 1)) return bad(error, "beta1", o.beta1, below_one);
  if (!(o.beta2 >= 0 && o.beta2 < 1)) return bad(error, "beta2", o.beta2, below_one);
  if (!(o.epsilon > 0 && o.epsilon <= kMaxFloat)) return bad(error, "epsilon", o.epsilon, "finite and above 0");
  if (!(o.label_smoothing >= 0 && o.label_smoothing < 1)) {
    return bad(error, "label_smoothing", o.label_smoothing, below_one);
  }
  if (tkt_status status = check_finite("clip_norm", o.clip_norm, error)) return status;
  if (!(o.schedule_factor >= 0 && o.schedule_factor <= 1)) {
    return bad(error, "schedule_factor", o.schedule_factor, "in 0 to 1");
  }
  return TKT_OK;
}

}  // namespace

tkt_status check_learning_rate(float learning_rate, tkt_error *error) {
  return check_finite("learning_rate", learning_rate, error);
}

tkt_options options_from(const Recipe &recipe) {
  tkt_options o = {};
  o.struct_bytes = sizeof o;
  o.batch = recipe.batch;
  o.optimizer = recipe.optimizer;
  o.kernels = TKT_KERNELS_AUTO;
  o.start = TKT_START_INIT;
  o.learning_rate = recipe.learning_rate;
  o.momentum = recipe.momentum;
  o.weight_decay = recipe.weight_decay;
  o.beta1 = recipe.beta1;
  o.beta2 = recipe.beta2;
  o.epsilon = recipe.epsilon;
  o.nesterov = recipe.nesterov;
  o.label_smoothing = recipe.label_smoothing;
  o.clip_norm = recipe.clip_norm;
  o.schedule = recipe.schedule;
  o.warmup_steps = recipe.warmup_steps;
  o.schedule_steps = recipe.schedule_steps;
  o.schedule_factor = recipe.schedule_factor;
  o.threads = 1;
  return o;
}

tkt_status check_ranges(const tkt_options &o, tkt_error *error) {
  if (o.batch < 1 || o.batch > kMaxBatch) {
    return fail(error, TKT_INVALID_INPUT, "batch is ", o.batch, ", but must be 1 to ", kMaxBatch);
  }
  if (o.optimizer < TKT_SGD || o.optimizer > TKT_ADAMW) {
    return fail(error, TKT_INVALID_INPUT, "optimizer is ", o.optimizer, ", but must be 1 (SGD), 2 (Adam) or 3 (AdamW)");
  }
  if (o.kernels > TKT_KERNELS_NEON) {
    return fail(error, TKT_INVALID_INPUT, "kernels is ", o.kernels, ", but must be 0 (AUTO) to 4; see tkt_kernels");
  }
  if (o.start > TKT_START_TRAINED) {
    return fail(error, TKT_INVALID_INPUT, "start is ", o.start, ", but must be 0 (INIT) or 1 (TRAINED)");
  }
  if (o.store_gradients > 1) {
    return fail(error, TKT_INVALID_INPUT, "store_gradients is ", o.store_gradients, ", but must be 0 or 1");
  }
  if (o.recompute > 1) return fail(error, TKT_INVALID_INPUT, "recompute is ", o.recompute, ", but must be 0 or 1");
  if (o.half_activations > 1) {
    return fail(error, TKT_INVALID_INPUT, "half_activations is ", o.half_activations, ", but must be 0 or 1");
  }
  if (o.threads < 1 || o.threads > kMostThreads) {
    return fail(error, TKT_INVALID_INPUT, "threads is ", o.threads, ", but must be 1 to ", kMostThreads);
  }
  if (o.nesterov > 1 || (o.nesterov == 1 && !(o.momentum > 0))) {
    return fail(error, TKT_INVALID_INPUT, "nesterov is ", o.nesterov, ", but must be 0, or 1 with a momentum above 0");
  }
  if (o.schedule > TKT_SCHEDULE_LINEAR) {
    return fail(error, TKT_INVALID_INPUT, "schedule is ", o.schedule, ", but must be 0 (CONSTANT) to 3 (LINEAR)");
  }
  if ((o.schedule == TKT_SCHEDULE_CONSTANT) != (o.schedule_steps == 0)) {
    return fail(error, TKT_INVALID_INPUT, "schedule_steps is ", o.schedule_steps,
                ", but must be 0 for a constant schedule and at least 1 for every other");
  }
  return check_floats(o, error);
}

tkt_status check_options(const tkt_options *options, const Artifact &artifact, tkt_error *error) {
  if (options == nullptr) return fail(error, TKT_INVALID_INPUT, "options is NULL; begin with tkt_default_options");
  if (options->struct_bytes != sizeof *options) {
    return fail(error, TKT_INVALID_INPUT, "options.struct_bytes is ", options->struct_bytes,
                ", but this runtime's tkt_options has ", sizeof *options, " bytes; build with its header");
  }
  if (tkt_status status = check_ranges(*options, error)) return status;
  if (options->start == TKT_START_TRAINED && artifact.trained.data == nullptr) {
    return fail(error, TKT_INVALID_INPUT, "start is TRAINED, but the artifact has no trained values; start from INIT");
  }
  return TKT_OK;
}

uint32_t moment_count(const tkt_options &options) {
  if (options.optimizer != TKT_SGD) return 2;
  return options.momentum > 0 ? 1 : 0;
}

}  // namespace tkt
