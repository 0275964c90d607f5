// device_runtime._core: the calls of ticket_runtime.h on numpy arrays, one method a call, nothing of its own.
// A trainer keeps the artifact's bytes and a 64-byte-aligned arena alive; both go with close() or the last reference.
// A status other than TKT_OK becomes the exception of device_runtime/errors.py, with the core's text. Computing calls
// let other Python threads run; a second thread that enters the same trainer meanwhile is refused, close() waits.
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "ticket_runtime.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using Samples = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Targets = nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>;  // labels, or floats (count, outputs)
using Rates = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Rows = nb::ndarray<const uint32_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

struct CoreError : std::exception {
  tkt_status status;
  std::string text;
  CoreError(tkt_status status, std::string text) : status(status), text(std::move(text)) {}
};

void check(tkt_status status, const tkt_error &error) {
  if (status != TKT_OK) throw CoreError(status, error.text);
}

[[noreturn]] void refuse(std::string text) { throw CoreError(TKT_INVALID_INPUT, std::move(text)); }

void to_python(const std::exception_ptr &thrown, void *) {
  try {
    std::rethrow_exception(thrown);
  } catch (const CoreError &error) {
    nb::object kind = nb::module_::import_("device_runtime.errors").attr("BY_STATUS")[nb::int_(int(error.status))];
    // The text may quote bytes of a damaged file.
    nb::object text = nb::steal(PyUnicode_DecodeUTF8(error.text.data(), Py_ssize_t(error.text.size()), "replace"));
    PyErr_SetObject(kind.ptr(), text.ptr());
  }
}

template <typename T>
nb::ndarray<nb::numpy, T> owned_array(std::unique_ptr<T[]> data, std::initializer_list<size_t> shape) {
  nb::capsule owner(data.get(), [](void *pointer) noexcept { delete[] static_cast<T *>(pointer); });
  return nb::ndarray<nb::numpy, T>(data.release(), shape, owner);
}

tkt_info read_info(const nb::bytes &artifact) {
  tkt_info info{};
  info.struct_bytes = sizeof info;
  tkt_error error{};
  check(tkt_inspect(artifact.data(), artifact.size(), &info, &error), error);
  return info;
}

uint64_t arena_bytes(const nb::bytes &artifact, const tkt_options &options) {
  uint64_t bytes = 0;
  tkt_error error{};
  check(tkt_arena_bytes(artifact.data(), artifact.size(), &options, &bytes, &error), error);
  return bytes;
}

struct ArenaFree {
  void operator()(void *arena) const { ::operator delete(arena, std::align_val_t(64)); }
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
    tkt_error error{};
    tkt_status status = TKT_OK;
    {
      nb::gil_scoped_release release;
      for (size_t step = 0; step < steps && status == TKT_OK; ++step) {
        for (uint32_t i = 0; i < count; ++i) {
          uint32_t row = rows.data()[step * count + i];
          std::memcpy(&batch[i * elements], samples.data() + row * elements, elements * sizeof(float));
          std::memcpy(&batch_targets[i * target_bytes], all_targets + row * target_bytes, target_bytes);
        }
        if (rates) status = tkt_set_learning_rate(trainer_, rates->data()[step], &error);
        if (status != TKT_OK) break;
        status = tkt_train_step(trainer_, batch.get(), batch_targets.get(), count, &losses[step], &error);
      }
    }
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
    double loss_sum = 0;
    tkt_error error{};
    tkt_status status;
    {
      nb::gil_scoped_release release;
      status = tkt_evaluate(trainer_, samples.data(), targets.data(), count, &loss_sum, &correct, &error);
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
    float loss = 0;
    tkt_error error{};
    tkt_status status;
    {
      nb::gil_scoped_release release;
      status = call(trainer_, samples.data(), targets.data(), count, &loss, &error);
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

nb::dict inspect(const nb::bytes &artifact) {
  tkt_info info = read_info(artifact);
  nb::list shape;
  for (uint32_t axis = 0; axis < info.input_rank; ++axis) shape.append(info.input_shape[axis]);
  nb::dict result;
  result["input_shape"] = nb::tuple(shape);
  result["input_elements"] = info.input_elements;
  result["class_count"] = info.class_count;
  result["loss"] = info.loss;
  result["node_count"] = info.node_count;
  result["parameter_count"] = info.parameter_count;
  result["has_trained"] = info.has_trained != 0;
  result["trained_count"] = info.trained_count;
  result["value_count"] = info.value_count;
  result["dense_count"] = info.dense_count;
  result["pruned_layer_live"] = info.pruned_layer_live;
  result["pruned_layer_weights"] = info.pruned_layer_weights;
  result["card"] = nb::bytes(info.card, info.card_bytes);
  result["ticket_hash"] = nb::bytes(info.ticket_hash, sizeof info.ticket_hash);
  return result;
}

std::vector<std::string> operators(const nb::bytes &artifact) {
  std::vector<uint32_t> codes(read_info(artifact).node_count);
  tkt_error error{};
  check(tkt_operators(artifact.data(), artifact.size(), codes.data(), uint32_t(codes.size()), &error), error);
  std::vector<std::string> names;
  for (uint32_t code : codes) {
    const char *name = tkt_operator_name(code);
    names.push_back(name ? name : "operator " + std::to_string(code));
  }
  return names;
}

tkt_options default_options(const nb::bytes &artifact) {
  tkt_options options{};
  options.struct_bytes = sizeof options;
  tkt_error error{};
  check(tkt_default_options(artifact.data(), artifact.size(), &options, &error), error);
  return options;
}

nb::dict memory_plan(const nb::bytes &artifact, const tkt_options &options) {
  tkt_memory memory{};
  memory.struct_bytes = sizeof memory;
  tkt_error error{};
  check(tkt_memory_plan(artifact.data(), artifact.size(), &options, &memory, &error), error);
  nb::dict result;
  result["micro_batch"] = memory.micro_batch;
  result["recomputed_nodes"] = memory.recomputed_nodes;
  result["half_buffers"] = memory.half_buffers;
  result["values"] = memory.values;
  result["gradients"] = memory.gradients;
  result["optimizer"] = memory.optimizer;
  result["activations"] = memory.activations;
  result["index"] = memory.index;
  result["bookkeeping"] = memory.bookkeeping;
  result["total"] = memory.total;
  return result;
}

}  // namespace

NB_MODULE(_core, module) {
  nb::register_exception_translator(to_python);
  module.def("abi_version", &tkt_abi_version);
  module.def("inspect", &inspect, "artifact"_a);
  module.def("operators", &operators, "artifact"_a);
  module.def("default_options", &default_options, "artifact"_a);
  module.def("arena_bytes", &arena_bytes, "artifact"_a, "options"_a);
  module.def("memory_plan", &memory_plan, "artifact"_a, "options"_a);

  nb::class_<tkt_options>(module, "Options")
      .def_rw("batch", &tkt_options::batch)
      .def_rw("optimizer", &tkt_options::optimizer)
      .def_rw("kernels", &tkt_options::kernels)
      .def_rw("start", &tkt_options::start)
      .def_rw("learning_rate", &tkt_options::learning_rate)
      .def_rw("momentum", &tkt_options::momentum)
      .def_rw("weight_decay", &tkt_options::weight_decay)
      .def_rw("beta1", &tkt_options::beta1)
      .def_rw("beta2", &tkt_options::beta2)
      .def_rw("epsilon", &tkt_options::epsilon)
      .def_rw("nesterov", &tkt_options::nesterov)
      .def_rw("label_smoothing", &tkt_options::label_smoothing)
      .def_rw("clip_norm", &tkt_options::clip_norm)
      .def_rw("schedule", &tkt_options::schedule)
      .def_rw("warmup_steps", &tkt_options::warmup_steps)
      .def_rw("schedule_steps", &tkt_options::schedule_steps)
      .def_rw("schedule_factor", &tkt_options::schedule_factor)
      .def_rw("micro_batch", &tkt_options::micro_batch)
      .def_rw("threads", &tkt_options::threads)
      .def_rw("store_gradients", &tkt_options::store_gradients)
      .def_rw("recompute", &tkt_options::recompute)
      .def_rw("half_activations", &tkt_options::half_activations)
      .def_rw("seed", &tkt_options::seed)
      .def_rw("budget_bytes", &tkt_options::budget_bytes);

  nb::class_<CoreTrainer>(module, "CoreTrainer")
      .def(nb::init<nb::bytes, const tkt_options &, uint64_t>(), "artifact"_a, "options"_a, "arena_bytes"_a = 0)
      .def("close", &CoreTrainer::close)
      .def("next_batch", &CoreTrainer::next_batch, "sample_count"_a)
      .def("train_step", &CoreTrainer::train_step, "samples"_a.noconvert(), "targets"_a.noconvert())
      .def("train_steps", &CoreTrainer::train_steps, "samples"_a.noconvert(), "targets"_a.noconvert(),
           "rows"_a.noconvert(), "learning_rates"_a.noconvert().none())
      .def("set_learning_rate", &CoreTrainer::set_learning_rate, "learning_rate"_a)
      .def("compute_gradients", &CoreTrainer::compute_gradients, "samples"_a.noconvert(), "targets"_a.noconvert())
      .def("evaluate", &CoreTrainer::evaluate, "samples"_a.noconvert(), "targets"_a.noconvert())
      .def("predict", &CoreTrainer::predict, "samples"_a.noconvert())
      .def("values", &CoreTrainer::values)
      .def("gradients", &CoreTrainer::gradients)
      .def("progress", &CoreTrainer::progress)
      .def("kernels_in_use", &CoreTrainer::kernels_in_use)
      .def("reset", &CoreTrainer::reset)
      .def("save", &CoreTrainer::save)
      .def("restore", &CoreTrainer::restore, "checkpoint"_a)
      .def("export_artifact", &CoreTrainer::export_artifact);
}
