// CoreTrainer: the trainer of ticket_runtime.h, one method a call. It keeps the artifact's bytes and a 64-byte-aligned
// arena alive; both go with close() or the last reference. Computing calls let other Python threads run; a second thread
// that enters the same trainer meanwhile is refused, close() waits.
#pragma once

#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <string>
#include <utility>

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include "calls.h"

namespace tkt_python {

using Samples = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Targets = nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>;  // labels, or floats (count, outputs)
using Rates = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Rows = nb::ndarray<const uint32_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

template <typename T>
nb::ndarray<nb::numpy, T> owned_array(std::unique_ptr<T[]> data, std::initializer_list<size_t> shape) {
  nb::capsule owner(data.get(), [](void *pointer) noexcept { delete[] static_cast<T *>(pointer); });
  return nb::ndarray<nb::numpy, T>(data.release(), shape, owner);
}

struct ArenaFree {
  void operator()(void *arena) const { ::operator delete(arena, std::align_val_t(64)); }
};

// Targets for a call that lets other threads run: a copy of labels, which are places in memory, so that those that were checked
// are those that are used. Floats may change under a step without harm.
class Labels {
 public:
  explicit Labels(const Targets &targets) : given_(targets.data()) {
    if (targets.ndim() != 1) return;
    copy_.reset(new int32_t[targets.size()]);
    std::memcpy(copy_.get(), targets.data(), targets.size() * sizeof(int32_t));
  }
  const void *data() const { return copy_ ? copy_.get() : given_; }

 private:
  const void *given_;
  std::unique_ptr<int32_t[]> copy_;
};

class CoreTrainer {
 public:
  // `arena` 0 takes what tkt_arena_bytes says; a test gives less and expects to be refused.
  CoreTrainer(nb::bytes artifact, const tkt_options &options, uint64_t arena)
      : artifact_(std::move(artifact)), info_(read_info(artifact_)), batch_(options.batch) {
    if (arena == 0) arena = arena_bytes(artifact_, options);
    arena_.reset(::operator new(arena, std::align_val_t(64), std::nothrow));
    if (!arena_) {
      throw CoreError(TKT_BUDGET_EXCEEDED,
                      "no memory for an arena of " + std::to_string(arena) + " bytes; take a smaller batch");
    }
    std::memset(arena_.get(), 0xFF, arena);  // what is read but was never written shows as NaN, not as luck
    tkt_error error{};
    check(tkt_open(artifact_.data(), artifact_.size(), &options, arena_.get(), arena, &trainer_, &error), error);
  }

  CoreTrainer(const CoreTrainer &) = delete;
  CoreTrainer &operator=(const CoreTrainer &) = delete;

  ~CoreTrainer() { tkt_close(trainer_); }

  void close() {
    std::unique_lock<std::mutex> lock(turn_, std::defer_lock);
    {
      nb::gil_scoped_release release;  // whoever computes needs the interpreter to finish
      lock.lock();
    }
    tkt_close(trainer_);
    trainer_ = nullptr;
    arena_.reset();
    artifact_ = nb::bytes("", 0);
  }

  nb::ndarray<nb::numpy, uint32_t> next_batch(uint32_t sample_count) {
    auto turn = take_turn();
    std::unique_ptr<uint32_t[]> indices(new uint32_t[batch_]);
    uint32_t count = 0;
    tkt_error error{};
    check(tkt_next_batch(trainer_, sample_count, indices.get(), &count, &error), error);
    return owned_array(std::move(indices), {count});
  }

  float train_step(const Samples &samples, const Targets &targets) { return step(tkt_train_step, samples, targets); }

  // rows (steps, batch) numbers samples; one update a row of it, at its learning rate if there are any, without the
  // interpreter in between. On an error the steps before it are made.
  nb::ndarray<nb::numpy, float> train_steps(const Samples &samples, const Targets &targets, const Rows &rows,
                                            const std::optional<Rates> &rates) {
    auto turn = take_turn();
    uint32_t known = checked_count(samples), count = uint32_t(rows.shape(1));
    check_targets(targets, known);
    if (known == 0) refuse("0 samples; give at least one");
    size_t steps = rows.shape(0), elements = info_.input_elements;
    for (size_t i = 0; i < rows.size(); ++i) {
      if (rows.data()[i] >= known)
        refuse("rows name sample " + std::to_string(rows.data()[i]) + " of " + std::to_string(known));
    }
    if (rates && rates->size() != steps)
      refuse(std::to_string(rates->size()) + " learning_rates for " + std::to_string(steps) +
             " steps; give one a step");
    std::unique_ptr<float[]> losses(new float[steps]), batch(new float[count * elements]);
    const size_t target_bytes = targets.size() / known * sizeof(float);
    std::unique_ptr<uint8_t[]> batch_targets(new uint8_t[count * target_bytes]);
    const uint8_t *all_targets = static_cast<const uint8_t *>(targets.data());
    uint32_t row = 0;
    tkt_error error{};
    tkt_status status = TKT_OK;
    {
      nb::gil_scoped_release release;
      for (size_t step = 0; step < steps && status == TKT_OK; ++step) {
        for (uint32_t i = 0; i < count; ++i) {
          row = static_cast<const volatile uint32_t *>(rows.data())[step * count + i];  // once: others may write there
          if (row >= known) break;
          std::memcpy(&batch[i * elements], samples.data() + row * elements, elements * sizeof(float));
          std::memcpy(&batch_targets[i * target_bytes], all_targets + row * target_bytes, target_bytes);
        }
        if (row >= known) break;
        if (rates) status = tkt_set_learning_rate(trainer_, rates->data()[step], &error);
        if (status != TKT_OK) break;
        status = tkt_train_step(trainer_, batch.get(), batch_targets.get(), count, &losses[step], &error);
      }
    }
    if (row >= known)
      refuse("rows name sample " + std::to_string(row) + " of " + std::to_string(known) + ", written meanwhile");
    check(status, error);
    return owned_array(std::move(losses), {steps});
  }

  void set_learning_rate(float learning_rate) {
    auto turn = take_turn();
    tkt_error error{};
    check(tkt_set_learning_rate(trainer_, learning_rate, &error), error);
  }

  float compute_gradients(const Samples &samples, const Targets &targets) {
    return step(tkt_compute_gradients, samples, targets);
  }

  nb::tuple evaluate(const Samples &samples, const Targets &targets) {
    auto turn = take_turn();
    uint32_t count = checked_count(samples), correct = 0;
    check_targets(targets, count);
    const Labels labels(targets);
    double loss_sum = 0;
    tkt_error error{};
    tkt_status status;
    {
      nb::gil_scoped_release release;
      status = tkt_evaluate(trainer_, samples.data(), labels.data(), count, &loss_sum, &correct, &error);
    }
    check(status, error);
    return nb::make_tuple(loss_sum, correct);
  }

  nb::ndarray<nb::numpy, float> predict(const Samples &samples) {
    auto turn = take_turn();
    uint32_t count = checked_count(samples);
    std::unique_ptr<float[]> probabilities(new float[size_t(count) * info_.class_count]);
    tkt_error error{};
    tkt_status status;
    {
      nb::gil_scoped_release release;
      status = tkt_predict(trainer_, samples.data(), count, probabilities.get(), &error);
    }
    check(status, error);
    return owned_array(std::move(probabilities), {count, info_.class_count});
  }

  // Copies: the arena moves on with the next step.
  nb::ndarray<nb::numpy, float> values() { return copied(tkt_values, info_.value_count); }
  nb::ndarray<nb::numpy, float> gradients() { return copied(tkt_gradients, info_.trained_count); }

  nb::tuple progress() {
    auto turn = take_turn();
    tkt_progress progress{};
    progress.struct_bytes = sizeof progress;
    tkt_error error{};
    check(tkt_get_progress(trainer_, &progress, &error), error);
    return nb::make_tuple(progress.step, progress.epoch, progress.position);
  }

  uint32_t kernels_in_use() {
    auto turn = take_turn();
    return tkt_kernels_in_use(trainer_);
  }

  void reset() {
    auto turn = take_turn();
    tkt_error error{};
    check(tkt_reset(trainer_, &error), error);
  }

  nb::bytes save() { return written(tkt_checkpoint_bytes, tkt_save); }
  nb::bytes export_artifact() { return written(tkt_export_bytes, tkt_export); }

  void restore(const nb::bytes &checkpoint) {
    auto turn = take_turn();
    tkt_error error{};
    check(tkt_restore(trainer_, checkpoint.data(), checkpoint.size(), &error), error);
  }

 private:
  std::unique_lock<std::mutex> take_turn() {
    std::unique_lock<std::mutex> turn(turn_, std::try_to_lock);
    if (!turn) refuse("the trainer is at work in another thread; one trainer serves one thread at a time");
    if (!trainer_) refuse("the trainer is closed; open it again");
    return turn;
  }

  uint32_t checked_count(const Samples &samples) const {
    if (samples.shape(1) != info_.input_elements) {
      refuse("samples have " + std::to_string(samples.shape(1)) + " elements each but the network takes " +
             std::to_string(info_.input_elements));
    }
    if (samples.shape(0) > UINT32_MAX) refuse(std::to_string(samples.shape(0)) + " samples in one call; split them");
    return uint32_t(samples.shape(0));
  }

  void check_targets(const Targets &targets, uint32_t count) const {
    const bool labels = info_.loss == TKT_CROSS_ENTROPY;
    const bool kind = labels ? targets.ndim() == 1 && targets.dtype() == nb::dtype<int32_t>()
                             : targets.ndim() == 2 && targets.dtype() == nb::dtype<float>();
    if (!kind || (!labels && targets.shape(1) != info_.class_count)) {
      refuse(labels ? "labels must be int32, one a sample"
                    : "targets must be float32, " + std::to_string(info_.class_count) + " a sample");
    }
    if (targets.shape(0) == count) return;
    refuse(std::to_string(count) + " samples but " + std::to_string(targets.shape(0)) +
           (labels ? " labels; give one label a sample" : " targets; give one row a sample"));
  }

  float step(decltype(&tkt_train_step) call, const Samples &samples, const Targets &targets) {
    auto turn = take_turn();
    uint32_t count = checked_count(samples);
    check_targets(targets, count);
    const Labels labels(targets);
    float loss = 0;
    tkt_error error{};
    tkt_status status;
    {
      nb::gil_scoped_release release;
      status = call(trainer_, samples.data(), labels.data(), count, &loss, &error);
    }
    check(status, error);
    return loss;
  }

  nb::ndarray<nb::numpy, float> copied(decltype(&tkt_values) source, uint64_t count) {
    auto turn = take_turn();
    const float *from = source(trainer_);
    if (!from) refuse("the trainer keeps no gradients; open it with store_gradients = 1");
    std::unique_ptr<float[]> copy(new float[count]);
    std::memcpy(copy.get(), from, count * sizeof(float));
    return owned_array(std::move(copy), {size_t(count)});
  }

  nb::bytes written(decltype(&tkt_checkpoint_bytes) size, decltype(&tkt_save) write) {
    auto turn = take_turn();
    size_t bytes = size_t(size(trainer_));
    nb::object result = nb::steal(PyBytes_FromStringAndSize(nullptr, Py_ssize_t(bytes)));
    if (!result.is_valid()) throw nb::python_error();
    tkt_error error{};
    check(write(trainer_, PyBytes_AsString(result.ptr()), bytes, &error), error);
    return nb::borrow<nb::bytes>(result);
  }

  nb::bytes artifact_;
  tkt_info info_;
  uint32_t batch_;
  std::unique_ptr<void, ArenaFree> arena_;
  tkt_trainer *trainer_ = nullptr;
  std::mutex turn_;
};

}  // namespace tkt_python
