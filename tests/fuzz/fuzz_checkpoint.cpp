// Target: a checkpoint of any bytes, restored into a trainer of the seed artifact and the optimizer that it names. Refused,
// the trainer is as before; accepted, it is saved as the same bytes again, and training goes on without a NaN.
#include "container.h"

namespace {

using fuzz::Bytes;
using fuzz::check_status;
using fuzz::Exact;
using fuzz::Random;
using fuzz::Snapshot;
using fuzz::Trainer;

constexpr uint32_t kSamples = 7, kHashAt = 24, kHashBytes = 32, kState = 1;

// Trainers of every seed artifact that is small enough, each with every kind of state, and checkpoints of them.
struct Bench {
  std::vector<Trainer> trainers;
  std::vector<Bytes> checkpoints;

  Bench() {
    for (const Bytes &artifact : fuzz::seed_artifacts()) {
      add(artifact, TKT_SGD, 0.0f);
      add(artifact, TKT_SGD, 0.9f);
      add(artifact, TKT_ADAM, 0.0f);
      add(artifact, TKT_ADAMW, 0.0f);
    }
    REQUIRE(!trainers.empty());
  }

  void add(const Bytes &artifact, uint32_t optimizer, float momentum) {
    const Exact<uint8_t> file(artifact);
    tkt_options options = fuzz::sized<tkt_options>();
    if (tkt_default_options(file.get(), file.size(), &options, nullptr) != TKT_OK) return;
    options.optimizer = optimizer;
    options.momentum = momentum;
    options.nesterov = 0;
    options.batch = 4;
    options.seed = 3;
    Trainer trainer;
    if (!trainer.open(file, options, false)) return;
    for (uint32_t steps : {0u, 3u}) {
      Bytes checkpoint;
      for (uint32_t step = 0; step < steps; ++step) train(trainer);
      if (trainer.save(&checkpoint)) checkpoints.push_back(checkpoint);
    }
    trainers.push_back(std::move(trainer));
  }

  static bool train(const Trainer &t) {
    Random random(t.info.value_count);
    const fuzz::Data data(t.info, kSamples, true, random);
    Exact<uint32_t> indices(t.options.batch);
    uint32_t count = 0;
    float loss = 0;
    tkt_error error = {};
    REQUIRE(tkt_next_batch(t.at, kSamples, indices.get(), &count, nullptr) == TKT_OK);
    for (uint32_t i = 0; i < count; ++i) REQUIRE(indices[i] < kSamples);
    return check_status(tkt_train_step(t.at, data.samples.get(), data.targets.get(), count, &loss, &error), &error);
  }

  // The trainer whose hash and kind of optimizer the checkpoint names; the first one if there is none.
  const Trainer &trainer_for(const Bytes &checkpoint) const {
    fuzz::File file;
    uint32_t optimizer = TKT_SGD, moments = 0;
    if (!file.read(checkpoint.data(), checkpoint.size())) return trainers[0];
    for (const fuzz::Part &part : file.parts) {
      if (part.kind != kState || part.body.size() < 52) continue;
      memcpy(&optimizer, part.body.data() + 28, 4);
      memcpy(&moments, part.body.data() + 48, 4);
    }
    for (const Trainer &t : trainers) {
      const bool same_kind =
          t.options.optimizer == optimizer && (optimizer != TKT_SGD || (t.options.momentum > 0) == (moments > 0));
      if (same_kind && memcmp(t.info.ticket_hash, checkpoint.data() + kHashAt, kHashBytes) == 0) return t;
    }
    return trainers[0];
  }
};

// No number in it is so large that an update could overflow.
bool is_tame(const Bytes &checkpoint) {
  fuzz::File file;
  if (!file.read(checkpoint.data(), checkpoint.size())) return false;
  for (const fuzz::Part &part : file.parts) {
    for (size_t at = 0; part.kind != kState && at + 4 <= part.body.size(); at += 4) {
      float value;
      memcpy(&value, part.body.data() + at, sizeof value);
      if (!(fabsf(value) < 1e6f)) return false;
    }
  }
  return true;
}

// Whether STATE says in which order the values lie; a trainer that saves always says so.
bool knows_layout(const Bytes &checkpoint) {
  fuzz::File file;
  if (!file.read(checkpoint.data(), checkpoint.size())) return false;
  for (const fuzz::Part &part : file.parts) {
    const uint8_t unknown[4] = {};
    if (part.kind == kState) return part.body.size() == 64 && memcmp(part.body.data() + 56, unknown, 4) != 0;
  }
  return false;
}

const Bench &bench() {
  static const Bench made;
  return made;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const Bytes checkpoint(data, data + size);
  const Trainer &t = bench().trainer_for(checkpoint);
  const Exact<uint8_t> bytes(checkpoint);
  REQUIRE(tkt_reset(t.at, nullptr) == TKT_OK);
  Bench::train(t);
  const Snapshot before(t);
  const fuzz::CpuTime time;
  tkt_error error = {};
  const tkt_status status = tkt_restore(t.at, bytes.get(), bytes.size(), &error);
  REQUIRE(time.seconds() < fuzz::kMaxCheckSeconds);
  if (!check_status(status, &error)) {
    REQUIRE(status == TKT_CORRUPT_CHECKPOINT || status == TKT_INVALID_INPUT);
    REQUIRE(before == Snapshot(t));
    return 0;
  }
  Bytes again;
  REQUIRE(t.save(&again));
  const bool plain = size == again.size() && memcmp(checkpoint.data(), again.data(), 20) == 0;  // no more sections
  REQUIRE(!plain || !knows_layout(checkpoint) || again == checkpoint);
  if (Bench::train(t) && is_tame(checkpoint)) REQUIRE(!t.any_nan());
  Bench::train(t);
  return 0;
}

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed) {
  Random random(seed);
  fuzz::File file;
  if (random.one_in(64) || (!file.read(data, size) && random.one_in(2))) {
    const Bytes &from = bench().checkpoints[random.below(uint32_t(bench().checkpoints.size()))];
    if (from.size() <= max_size) {
      memcpy(data, from.data(), from.size());
      size = from.size();
    }
  }
  return fuzz::mutate_file(data, size, max_size, random.next());
}

extern "C" size_t LLVMFuzzerCustomCrossOver(const uint8_t *a, size_t a_size, const uint8_t *b, size_t b_size,
                                            uint8_t *out, size_t max_size, unsigned seed) {
  fuzz::File first, second;
  if (!first.read(a, a_size) || !second.read(b, b_size)) return 0;
  return fuzz::cross_files(first, second, out, max_size, seed);
}
