// Target: sequences of calls of every function of ticket_runtime.h with hostile arguments. The bytes are read as a program:
// which call, which trainer, NULL or memory of exactly the size the header asks for, counts, capacities and options.
// Memory that is too small is given only where the header says that the call refuses it.
#include "fuzz.h"
#include "input.h"

namespace {

using fuzz::Bytes;
using fuzz::Exact;
using fuzz::Input;
using fuzz::Snapshot;
using fuzz::Trainer;

constexpr uint32_t kMaxCalls = 40, kMaxSamples = 40, kMaxDrawn = 100, kThreads = 3;

class Program {
 public:
  Program(const uint8_t *data, size_t size) : in_(data, size) {}

  void run() {
    for (uint32_t calls = 0; calls < kMaxCalls && !in_.at_end(); ++calls) next();
  }

 private:
  void next() {
    trainer_ = &slots_[in_.below(2)];
    tkt_trainer *const handle = trainer_->at;
    memset(&error_, 'x', sizeof error_);
    null_given_ = false;
    if (handle == nullptr && in_.below(4) != 0) return open();
    switch (in_.below(23)) {
      case 0: return open();
      case 1: return inspect();
      case 2: return operators();
      case 3: return default_options();
      case 4: return arena_bytes();
      case 5: return memory_plan();
      case 6: return next_batch();
      case 7:
      case 8: return step(tkt_train_step);
      case 9: return step(tkt_compute_gradients);
      case 10: return evaluate();
      case 11: return predict();
      case 12: return read_values();
      case 13: return progress();
      case 14: return names();
      case 15: return reset();
      case 16: return write(tkt_checkpoint_bytes, tkt_save, &checkpoint_);
      case 17: return write(tkt_export_bytes, tkt_export, &exported_);
      case 18: return restore();
      case 19: return set_learning_rate();
      case 20: return draw();
      case 21: return tkt_close(in_.rarely() ? nullptr : trainer_->at);
      default: tkt_close(std::exchange(trainer_->at, nullptr));
    }
  }

  // NULL now and then; the call must then refuse.
  template <typename T>
  T *given(T *pointer) {
    if (!in_.rarely()) return pointer;
    null_given_ = true;
    return nullptr;
  }
  tkt_error *error() { return in_.rarely() ? nullptr : &error_; }

  void check(tkt_status status, const tkt_error *error) {
    const bool done = fuzz::check_status(status, error);
    REQUIRE(!null_given_ || (!done && status == TKT_INVALID_INPUT));
  }

  // A call on the trainer that fails changes nothing.
  template <typename Call>
  tkt_status attempt(const Call &call) {
    tkt_error *const error = this->error();
    tkt_trainer *const handle = given(trainer_->at);
    if (handle == nullptr) null_given_ = true;
    if (trainer_->at == nullptr) {
      const tkt_status refused = call(nullptr, error);
      check(refused, error);
      return refused;
    }
    const Snapshot before(*trainer_);
    const tkt_status status = call(handle, error);
    check(status, error);
    REQUIRE(trainer_->may_change(status) || before == Snapshot(*trainer_));
    return status;
  }

  // A seed, what was exported last, either cut short or changed in one byte, or at an address that is not allowed.
  struct Artifact {
    Exact<uint8_t> memory;
    const uint8_t *at;
    size_t size;
  };

  Artifact artifact() {
    const auto &seeds = fuzz::seed_artifacts();
    Bytes bytes = exported_.empty() || in_.below(4) != 0 ? seeds[in_.byte() % seeds.size()] : exported_;
    if (in_.rarely()) bytes.resize(in_.word() % (bytes.size() + 1));
    if (in_.rarely() && !bytes.empty()) bytes[in_.word() % bytes.size()] ^= uint8_t(1 + in_.below(255));
    const bool misaligned = in_.rarely();
    if (misaligned) bytes.insert(bytes.begin(), 4, 0);
    Artifact made = {Exact<uint8_t>(bytes, in_.below(2) == 1), nullptr, bytes.size()};
    made.at = made.memory.get();
    if (misaligned) made.at += 4, made.size -= 4;
    return made;
  }

  tkt_options options(const Artifact &artifact) {
    tkt_options o = fuzz::sized<tkt_options>();
    o.batch = 4;
    o.optimizer = TKT_SGD;
    o.epsilon = 1;
    tkt_default_options(artifact.at, artifact.size, &o, nullptr);
    for (uint32_t changes = in_.below(4); changes > 0; --changes) {
      uint8_t *const field = reinterpret_cast<uint8_t *>(&o) + 4 * in_.below(sizeof o / 4);
      uint32_t word;
      memcpy(&word, field, sizeof word);
      word = in_.count(word);
      const float number = in_.number();
      memcpy(field, in_.below(2) == 0 ? static_cast<const void *>(&word) : &number, 4);
    }
    if (o.threads > kThreads && o.threads <= 64) o.threads = kThreads;
    return o;
  }

  void open() {
    Artifact file = artifact();
    tkt_options o = options(file);
    uint64_t needed = 0;
    tkt_error *const error = this->error();
    if (tkt_arena_bytes(file.at, file.size, &o, &needed, nullptr) != TKT_OK) needed = 64;
    if (needed > fuzz::kMaxArena) return;
    const size_t less = in_.rarely() ? 1 + in_.below(64) : 0;
    Exact<uint8_t> arena(needed > less ? size_t(needed) - less : 0, in_.below(2) == 1);
    tkt_trainer *made = nullptr;
    const void *const bytes = given(file.at);
    const tkt_options *const settings = given(&o);
    void *const memory = given(arena.get());
    tkt_trainer **const out = given(&made);
    // A refused artifact comes before a missing arena.
    const tkt_status status = tkt_open(bytes, file.size, settings, memory, arena.size(), out, error);
    REQUIRE(!null_given_ || status != TKT_OK);
    null_given_ = false;
    check(status, error);
    REQUIRE((status == TKT_OK) == (made != nullptr));
    REQUIRE(less == 0 || status != TKT_OK);
    if (status != TKT_OK) return;
    trainer_->info = fuzz::sized<tkt_info>();
    REQUIRE(tkt_inspect(file.at, file.size, &trainer_->info, nullptr) == TKT_OK);
    tkt_close(trainer_->at);
    trainer_->artifact = std::move(file.memory);
    trainer_->arena = std::move(arena);
    trainer_->options = o;
    trainer_->at = made;
  }

  void inspect() {
    const Artifact file = artifact();
    Exact<tkt_info> info(1);
    info[0].struct_bytes = in_.count(uint32_t(sizeof(tkt_info)));
    tkt_error *const error = this->error();
    const void *const bytes = given(file.at);
    check(tkt_inspect(bytes, file.size, given(info.get()), error), error);
  }

  void operators() {
    const Artifact file = artifact();
    const uint32_t capacity = in_.count(3) % 64;
    const Exact<uint32_t> codes(capacity);
    tkt_error *const error = this->error();
    const void *const bytes = given(file.at);
    uint32_t *const out = capacity == 0 && in_.rarely() ? nullptr : codes.get();
    check(tkt_operators(bytes, file.size, out, capacity, error), error);
  }

  void default_options() {
    const Artifact file = artifact();
    Exact<tkt_options> out(1);
    out[0].struct_bytes = in_.count(uint32_t(sizeof(tkt_options)));
    tkt_error *const error = this->error();
    const void *const bytes = given(file.at);
    check(tkt_default_options(bytes, file.size, given(out.get()), error), error);
  }

  void arena_bytes() {
    const Artifact file = artifact();
    const tkt_options o = options(file);
    uint64_t bytes_out = 0;
    tkt_error *const error = this->error();
    const void *const bytes = given(file.at);
    const tkt_options *const settings = given(&o);
    const tkt_status status = tkt_arena_bytes(bytes, file.size, settings, given(&bytes_out), error);
    REQUIRE(!null_given_ || status != TKT_OK);
    null_given_ = false;  // a refused artifact comes before missing options
    check(status, error);
  }

  void memory_plan() {
    const Artifact file = artifact();
    const tkt_options o = options(file);
    Exact<tkt_memory> memory(1);
    memory[0].struct_bytes = in_.count(uint32_t(sizeof(tkt_memory)));
    tkt_error *const error = this->error();
    const void *const bytes = given(file.at);
    const tkt_options *const settings = given(&o);
    const tkt_status status = tkt_memory_plan(bytes, file.size, settings, given(memory.get()), error);
    REQUIRE(!null_given_ || status != TKT_OK);
    null_given_ = false;
    check(status, error);
  }

  void next_batch() {
    const Exact<uint32_t> indices(trainer_->options.batch);
    Exact<uint32_t> count(1);
    const uint32_t samples = in_.count(11);
    uint32_t *const to = given(indices.get()), *const drawn = given(count.get());
    const tkt_status status = attempt(
        [&](tkt_trainer *trainer, tkt_error *error) { return tkt_next_batch(trainer, samples, to, drawn, error); });
    if (status != TKT_OK) return;
    REQUIRE(samples > 0 && count[0] >= 1 && count[0] <= trainer_->options.batch);
    for (uint32_t i = 0; i < count[0]; ++i) REQUIRE(indices[i] < samples);
  }

  // Samples and targets of `count`, mostly ones that can be learnt from.
  fuzz::Data data(uint32_t count) {
    tkt_info info = trainer_->info;
    if (trainer_->at == nullptr) info.class_count = info.input_elements = 1;
    fuzz::Random random(in_.byte());
    fuzz::Data made(info, count, in_.below(2) == 0, random);
    for (uint32_t odd = in_.below(4); odd > 0 && count > 0; --odd) {
      made.samples[in_.word() % made.samples.size()] = in_.number();
      const float target = in_.number();
      if (in_.rarely()) memcpy(&made.targets[in_.word() % made.targets.size()], &target, sizeof target);
      if (in_.below(4) == 0) made.targets[in_.word() % made.targets.size()] = in_.count(info.class_count);
    }
    return made;
  }

  // In the arena no sanitizer sees what lies behind the last class.
  bool labels_fit(const fuzz::Data &data) const {
    if (trainer_->at == nullptr || trainer_->info.loss != TKT_CROSS_ENTROPY) return true;
    for (size_t i = 0; i < data.targets.size(); ++i) {
      if (data.targets[i] >= trainer_->info.class_count) return false;
    }
    return true;
  }

  // A count above the batch is refused before anything is read, so that no memory is behind it.
  void step(decltype(&tkt_train_step) call) {
    const uint32_t batch = trainer_->options.batch, count = in_.count(batch), there = count <= batch ? count : 0;
    const fuzz::Data batch_data = data(there);
    float loss = NAN;
    const float *const x = given(batch_data.samples.get());
    const void *const y = given(batch_data.targets.get());
    float *const out = given(&loss);
    const tkt_status status =
        attempt([&](tkt_trainer *trainer, tkt_error *error) { return call(trainer, x, y, count, out, error); });
    if (status == TKT_OK) REQUIRE(loss - loss == 0 && count >= 1 && count <= batch && labels_fit(batch_data));
  }

  void evaluate() {
    const uint32_t count = in_.count(5) % kMaxSamples;
    const fuzz::Data given_data = data(count);
    double loss_sum = NAN;
    uint32_t correct = 0;
    const float *const x = given(given_data.samples.get());
    const void *const y = given(given_data.targets.get());
    double *const out = given(&loss_sum);
    uint32_t *const hits = given(&correct);
    const tkt_status status = attempt(
        [&](tkt_trainer *trainer, tkt_error *error) { return tkt_evaluate(trainer, x, y, count, out, hits, error); });
    if (status == TKT_OK) REQUIRE(loss_sum - loss_sum == 0 && correct <= count && count >= 1 && labels_fit(given_data));
  }

  void predict() {
    const uint32_t count = in_.count(5) % kMaxSamples;
    const fuzz::Data given_data = data(count);
    const Exact<float> probabilities(size_t(count) * trainer_->info.class_count);
    const float *const x = given(given_data.samples.get());
    float *const out = given(probabilities.get());
    const tkt_status status =
        attempt([&](tkt_trainer *trainer, tkt_error *error) { return tkt_predict(trainer, x, count, out, error); });
    for (size_t i = 0; status == TKT_OK && i < probabilities.size(); ++i) {
      REQUIRE(probabilities[i] - probabilities[i] == 0);
    }
  }

  void read_values() {
    const float *const values = tkt_values(trainer_->at), *const gradients = tkt_gradients(trainer_->at);
    REQUIRE((values == nullptr) == (trainer_->at == nullptr) && (values != nullptr || gradients == nullptr));
    volatile float sum = 0;
    for (uint64_t i = 0; values && i < trainer_->info.value_count; ++i) sum = sum + values[i];
    for (uint64_t i = 0; gradients && i < trainer_->info.trained_count; ++i) sum = sum + gradients[i];
    REQUIRE((tkt_kernels_in_use(trainer_->at) == TKT_KERNELS_AUTO) == (trainer_->at == nullptr));
  }

  void progress() {
    Exact<tkt_progress> out(1);
    out[0].struct_bytes = in_.count(uint32_t(sizeof(tkt_progress)));
    tkt_progress *const to = given(out.get());
    attempt([&](tkt_trainer *trainer, tkt_error *error) { return tkt_get_progress(trainer, to, error); });
  }

  void names() {
    REQUIRE(tkt_abi_version() == TKT_ABI_VERSION);
    REQUIRE(strlen(tkt_status_name(int32_t(in_.count(3)))) > 0);
    const char *const name = tkt_operator_name(in_.count(3));
    REQUIRE(name == nullptr || strlen(name) > 0);
  }

  void set_learning_rate() {
    float rate = 0.01f;
    if (in_.rarely()) {
      const uint32_t bits = in_.word();
      memcpy(&rate, &bits, sizeof rate);
    }
    const tkt_status status =
        attempt([&](tkt_trainer *trainer, tkt_error *error) { return tkt_set_learning_rate(trainer, rate, error); });
    if (status == TKT_OK) REQUIRE(rate >= 0 && rate - rate == 0);
  }

  // Needs no trainer. What is drawn is finite, and each element depends on its number, not on the call it is drawn by.
  void draw() {
    const uint64_t seed = uint64_t(in_.word()) << 32 | in_.word();
    const uint32_t stream = in_.count(0), distribution = in_.below(4), first = in_.count(0),
                   count = in_.count(7) % kMaxDrawn;
    const float a = in_.number(), b = in_.rarely() ? in_.number() : float(in_.below(3));
    const Exact<float> values(count), again(1), untouched(count);
    tkt_error *const error = this->error();
    float *const to = given(values.get());
    const tkt_status status = tkt_draw(seed, stream, distribution, a, b, first, count, to, error);
    check(status, error);
    if (status != TKT_OK) REQUIRE(memcmp(values.get(), untouched.get(), values.bytes()) == 0);
    if (status != TKT_OK || count == 0) return;
    REQUIRE(uint64_t(first) + count <= uint64_t(1) << 32 && distribution < 3 && a - a == 0 && b - b == 0);
    for (uint32_t i = 0; i < count; ++i) REQUIRE(values[i] - values[i] == 0);
    const uint32_t chosen = in_.word() % count;
    REQUIRE(tkt_draw(seed, stream, distribution, a, b, first + chosen, 1, again.get(), nullptr) == TKT_OK);
    REQUIRE(memcmp(again.get(), &values[chosen], sizeof(float)) == 0);
  }

  void reset() {
    attempt([&](tkt_trainer *trainer, tkt_error *error) { return tkt_reset(trainer, error); });
  }

  // Memory of exactly the capacity that is told.
  void write(decltype(&tkt_checkpoint_bytes) size, decltype(&tkt_save) call, Bytes *last) {
    const uint64_t needed = size(trainer_->at);
    REQUIRE((needed == 0) == (trainer_->at == nullptr));
    size_t capacity = size_t(needed);
    if (in_.rarely()) capacity -= capacity < 64 ? 0 : in_.below(64);
    if (in_.rarely()) capacity = in_.word() % (size_t(needed) + 65);
    const Exact<uint8_t> memory(capacity, in_.below(2) == 1);
    uint8_t *const to = given(memory.get());
    const tkt_status status =
        attempt([&](tkt_trainer *trainer, tkt_error *error) { return call(trainer, to, capacity, error); });
    if (status != TKT_OK) return;
    REQUIRE(capacity >= needed);
    last->assign(memory.get(), memory.get() + needed);
  }

  void restore() {
    Bytes bytes = checkpoint_;
    if (in_.rarely()) bytes = exported_;
    if (in_.rarely()) bytes.resize(in_.word() % (bytes.size() + 1));
    if (in_.rarely() && !bytes.empty()) bytes[in_.word() % bytes.size()] ^= uint8_t(1 + in_.below(255));
    const bool misaligned = in_.below(4) == 3;  // a checkpoint may lie at any address
    if (misaligned) bytes.insert(bytes.begin(), 1, 0);
    const Exact<uint8_t> memory(bytes);
    const uint8_t *const from = given(memory.get() + misaligned);
    attempt([&](tkt_trainer *trainer, tkt_error *error) {
      return tkt_restore(trainer, from, bytes.size() - misaligned, error);
    });
  }

  Input in_;
  Trainer slots_[2], *trainer_ = nullptr;
  Bytes checkpoint_, exported_;
  tkt_error error_;
  bool null_given_ = false;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  Program(data, size).run();
  return 0;
}
