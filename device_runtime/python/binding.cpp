// device_runtime._core: the calls of ticket_runtime.h on numpy arrays, nothing of its own. Those on a trainer are in
// core_trainer.h, the others here. A status other than TKT_OK becomes the exception of device_runtime/errors.py, with
// the core's text.
#include <exception>
#include <string>
#include <vector>

#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "core_trainer.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace tkt_python {
namespace {

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

nb::ndarray<nb::numpy, float> draw(uint64_t seed, uint32_t stream, uint32_t distribution, float a, float b,
                                   uint32_t first, uint32_t count) {
  std::unique_ptr<float[]> values(new float[count]);
  tkt_error error{};
  {
    nb::gil_scoped_release release;
    check(tkt_draw(seed, stream, distribution, a, b, first, count, values.get(), &error), error);
  }
  return owned_array(std::move(values), {count});
}

}  // namespace
}  // namespace tkt_python

NB_MODULE(_core, module) {
  using namespace tkt_python;
  nb::register_exception_translator(to_python);
  module.def("abi_version", &tkt_abi_version);
  module.def("inspect", &inspect, "artifact"_a);
  module.def("operators", &operators, "artifact"_a);
  module.def("default_options", &default_options, "artifact"_a);
  module.def("arena_bytes", &arena_bytes, "artifact"_a, "options"_a);
  module.def("memory_plan", &memory_plan, "artifact"_a, "options"_a);
  module.def("draw", &draw, "seed"_a, "stream"_a, "distribution"_a, "a"_a, "b"_a, "first"_a, "count"_a);

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
