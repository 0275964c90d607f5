// Target: an artifact of any bytes. Whatever reads it agrees with whatever else does and takes no time; what opens trains,
// predicts, is saved, restored and exported, gives the same bits on every kernel, and is as before after an error.
#include "container.h"

namespace {

using fuzz::check_status;
using fuzz::Data;
using fuzz::Exact;
using fuzz::Random;
using fuzz::sized;
using fuzz::Snapshot;
using fuzz::Trainer;

constexpr uint32_t kSamples = 5;

// Every call that only reads, each within its time. False if the artifact is refused.
bool read_all(const Exact<uint8_t> &file, tkt_info *info, tkt_options *options) {
  const fuzz::CpuTime time;
  tkt_error error = {};
  *info = sized<tkt_info>();
  *options = sized<tkt_options>();
  const tkt_status status = tkt_inspect(file.get(), file.size(), info, &error);
  const bool sound = check_status(status, &error);
  REQUIRE(sound || (status != TKT_BUDGET_EXCEEDED && status != TKT_NON_FINITE_LOSS));
  REQUIRE(tkt_default_options(file.get(), file.size(), options, nullptr) == status);
  REQUIRE(tkt_operators(file.get(), file.size(), nullptr, 0, nullptr) == status);
  REQUIRE(time.seconds() < fuzz::kMaxCheckSeconds);
  if (!sound) return false;
  REQUIRE(info->class_count >= 1 && info->input_elements >= 1 && info->value_count >= 1);
  REQUIRE(info->value_count <= info->dense_count && info->pruned_layer_live <= info->pruned_layer_weights);
  REQUIRE(info->card_bytes <= file.size());
  Exact<uint32_t> codes(info->node_count);
  REQUIRE(tkt_operators(file.get(), file.size(), codes.get(), info->node_count, &error) == TKT_OK);
  for (uint32_t i = 0; i < info->node_count; ++i) REQUIRE(tkt_operator_name(codes[i]) != nullptr);
  return true;
}

bool plan_agrees(const Exact<uint8_t> &file, const tkt_options &options) {
  const fuzz::CpuTime time;
  tkt_error error = {};
  uint64_t bytes = 0;
  tkt_memory memory = sized<tkt_memory>();
  const tkt_status status = tkt_arena_bytes(file.get(), file.size(), &options, &bytes, &error);
  REQUIRE(tkt_memory_plan(file.get(), file.size(), &options, &memory, nullptr) == status);
  REQUIRE(time.seconds() < fuzz::kMaxCheckSeconds);
  if (!check_status(status, &error)) return false;
  REQUIRE(memory.total == bytes && bytes >= memory.values + memory.gradients + memory.activations);
  return true;
}

// A call that fails leaves values and progress alone.
template <typename Call>
bool attempt(const Trainer &trainer, const Call &call) {
  tkt_error error = {};
  const Snapshot before(trainer);
  const tkt_status status = call(&error);
  REQUIRE(trainer.may_change(status) || before == Snapshot(trainer));
  return check_status(status, &error);
}

bool train(const Trainer &t, const Data &data, uint32_t count) {
  float loss = NAN;
  const bool done = attempt(t, [&](tkt_error *error) {
    return tkt_train_step(t.at, data.samples.get(), data.targets.get(), count, &loss, error);
  });
  REQUIRE(!done || loss - loss == 0);
  return done;
}

void read_out(const Trainer &t, const Data &data) {
  double loss_sum = NAN;
  uint32_t correct = 0;
  Exact<float> probabilities(size_t(kSamples) * t.info.class_count);
  const Snapshot before(t);
  tkt_error error = {};
  tkt_status status = tkt_evaluate(t.at, data.samples.get(), data.targets.get(), kSamples, &loss_sum, &correct, &error);
  if (check_status(status, &error)) REQUIRE(loss_sum - loss_sum == 0 && correct <= kSamples);
  status = tkt_predict(t.at, data.samples.get(), kSamples, probabilities.get(), &error);
  if (check_status(status, &error)) {
    for (size_t i = 0; i < probabilities.size(); ++i) REQUIRE(probabilities[i] - probabilities[i] == 0);
  }
  REQUIRE(before == Snapshot(t));
}

// One sample at a time, which takes other ways through memory and registers: the same bits.
void predict_alone(const Trainer &t, const Exact<uint8_t> &file, const Data &data) {
  tkt_options options = t.options;
  options.batch = 1;
  options.micro_batch = 0;
  Trainer single;
  if (!single.open(file, options, true)) return;
  const Exact<float> together(size_t(kSamples) * t.info.class_count), alone(together.size());
  const tkt_status status = tkt_predict(t.at, data.samples.get(), kSamples, together.get(), nullptr);
  REQUIRE(status == tkt_predict(single.at, data.samples.get(), kSamples, alone.get(), nullptr));
  if (status == TKT_OK) REQUIRE(memcmp(together.get(), alone.get(), together.bytes()) == 0);
}

// Steps as an app makes them; `steps` bounds them.
void train_epoch(const Trainer &t, const Data &data, uint32_t steps) {
  Exact<uint32_t> indices(t.options.batch);
  for (uint32_t step = 0; step < steps; ++step) {
    uint32_t count = 0;
    REQUIRE(tkt_next_batch(t.at, kSamples, indices.get(), &count, nullptr) == TKT_OK);
    REQUIRE(count >= 1 && count <= t.options.batch);
    for (uint32_t i = 0; i < count; ++i) REQUIRE(indices[i] < kSamples);
    train(t, data, count);
  }
}

// A second trainer of the same artifact with other kernels: after each step the same bits.
void compare(const Trainer &t, const Trainer &other, const Data &data) {
  fuzz::Bytes one, two;
  for (uint32_t step = 0; step < 2; ++step) {
    const bool done = train(t, data, t.options.batch < kSamples ? t.options.batch : kSamples);
    REQUIRE(done == train(other, data, t.options.batch < kSamples ? t.options.batch : kSamples));
    const bool saved = t.save(&one);
    REQUIRE(saved == other.save(&two));
    if (saved) REQUIRE(one == two);
  }
}

// What is saved can be restored, and what is exported can be opened.
void write_out(const Trainer &t, const Trainer &other) {
  fuzz::Bytes checkpoint, again;
  if (!t.save(&checkpoint)) return;
  const Exact<uint8_t> bytes(checkpoint);
  REQUIRE(tkt_restore(other.at, bytes.get(), bytes.size(), nullptr) == TKT_OK);
  REQUIRE(other.save(&again) && again == checkpoint);
  tkt_error error = {};
  const Exact<uint8_t> file(size_t(tkt_export_bytes(t.at)));
  const tkt_status status = tkt_export(t.at, file.get(), file.size(), &error);
  REQUIRE(status == TKT_OK || status == TKT_INVALID_INPUT);  // 32 sections are the most
  if (!check_status(status, &error)) return;
  tkt_options options = t.options;
  options.start = TKT_START_TRAINED;
  Trainer trained;
  REQUIRE(trained.open(file, options, false) && trained.info.has_trained == 1);
  REQUIRE(memcmp(tkt_values(trained.at), tkt_values(t.at), t.info.value_count * sizeof(float)) == 0);
}

void run(const Exact<uint8_t> &file, const tkt_info &info, tkt_options options, Random random) {
  const bool odd = random.one_in(2), whole = random.one_in(4);
  options.batch = 1 + random.below(kSamples + 2);
  if (random.one_in(16)) options.batch = 33;
  if (random.one_in(2)) options.micro_batch = 1 + random.below(options.batch);
  if (random.one_in(2)) options.optimizer = TKT_SGD + random.below(3);
  options.store_gradients = random.below(2);
  options.recompute = random.below(2);
  options.half_activations = random.below(2);
  options.start = info.has_trained && random.one_in(2) ? TKT_START_TRAINED : TKT_START_INIT;
  Trainer trainer, other;
  if (!trainer.open(file, options, odd)) return;
  const Data data(info, kSamples, whole, random);
  const Snapshot start(trainer);
  options.kernels = TKT_KERNELS_SCALAR + random.below(4);
  if (!other.open(file, options, !odd)) {  // this processor has others
    options.kernels = TKT_KERNELS_SCALAR;
    REQUIRE(other.open(file, options, !odd));
  }
  REQUIRE(tkt_kernels_in_use(other.at) == options.kernels);
  read_out(trainer, data);
  predict_alone(trainer, file, data);
  compare(trainer, other, data);
  train_epoch(trainer, data, 3);
  write_out(trainer, other);
  read_out(trainer, data);
  REQUIRE(tkt_reset(trainer.at, nullptr) == TKT_OK && start == Snapshot(trainer));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const Exact<uint8_t> file(fuzz::Bytes(data, data + size));
  tkt_info info;
  tkt_options options;
  if (!read_all(file, &info, &options)) return 0;
  plan_agrees(file, options);
  options.recompute = options.half_activations = 1;
  plan_agrees(file, options);
  options.recompute = options.half_activations = 0;
  uint32_t seed = 0;
  for (size_t i = 0; i < size; ++i) seed = seed * 31 + data[i];
  run(file, info, options, Random(seed));
  return 0;
}

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed) {
  return fuzz::mutate_file(data, size, max_size, seed);
}

extern "C" size_t LLVMFuzzerCustomCrossOver(const uint8_t *a, size_t a_size, const uint8_t *b, size_t b_size,
                                            uint8_t *out, size_t max_size, unsigned seed) {
  fuzz::File first, second;
  if (!first.read(a, a_size) || !second.read(b, b_size)) return 0;
  return fuzz::cross_files(first, second, out, max_size, seed);
}
