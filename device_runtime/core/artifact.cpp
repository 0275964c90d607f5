// Sections, recipe and input; the graph, the parameters and the values have files of their own.
#include "core/artifact.h"

#include "core/artifact_parts.h"
#include "core/bytes.h"
#include "core/error.h"
#include "core/options.h"

namespace tkt {
namespace {

constexpr uint32_t kRecipeBytes = 72, kMaxCardBytes = 1u << 20;
constexpr uint64_t kMaxDenseCount = 1ull << 40;  // 4096 parameters of 2^28

tkt_status check_presence(const Container &file, tkt_error *error) {
  static const char *const names[] = {"CARD", "RECIPE", "INPUT", "GRAPH", "PARAMS", "PATTERN", "INIT", "TRAINED"};
  for (uint32_t kind = kCard; kind <= kTrained; ++kind) {
    const bool plain = file.find(kind).data != nullptr;
    const bool packed = kind >= kPattern && file.find(kind + kPackedPattern - kPattern).data != nullptr;
    if (plain && packed) return corrupt(error, "the artifact has the section ", names[kind - 1], " plain and packed");
    if (!plain && !packed && kind != kTrained) {
      return corrupt(error, "the artifact has no section ", names[kind - 1]);
    }
  }
  uint32_t card = file.find(kCard).bytes;
  if (card > kMaxCardBytes) return corrupt(error, "the card has ", card, " bytes; at most ", kMaxCardBytes, " may be");
  return TKT_OK;
}

tkt_status read_recipe(const Section &section, Recipe *recipe, tkt_error *error) {
  if (section.bytes != kRecipeBytes) {
    return corrupt(error, "RECIPE has ", section.bytes, " bytes instead of ", kRecipeBytes);
  }
  memcpy(recipe, section.data, sizeof *recipe);
  if (recipe->optimizer < TKT_SGD || recipe->optimizer > TKT_ADAMW) {
    return fail(error, TKT_UNSUPPORTED_OP, "optimizer ", recipe->optimizer,
                " of the recipe is unknown to this runtime; update the runtime or export with 1 (SGD), 2 (Adam) or 3 "
                "(AdamW)");
  }
  if (recipe->schedule > TKT_SCHEDULE_LINEAR) {
    return fail(
        error, TKT_UNSUPPORTED_OP, "schedule ", recipe->schedule,
        " of the recipe is unknown to this runtime; update the runtime or export with 0 (constant), 1 (step), 2 "
        "(cosine) or 3 (linear)");
  }
  tkt_options options = options_from(*recipe);
  tkt_error reason;
  const bool reserved = recipe->reserved[0] != 0 || recipe->reserved[1] != 0;
  if (reserved || check_ranges(options, &reason) != TKT_OK) {
    return corrupt(error, "RECIPE: ", reserved ? "a reserved word is not 0" : reason.text);
  }
  return TKT_OK;
}

// Mean and inverse standard deviation of each channel.
tkt_status read_input(const Section &section, InputSpec *input, tkt_error *error) {
  if (section.bytes < 24) return corrupt(error, "INPUT has ", section.bytes, " bytes, too few");
  if (!read_shape(section.data, &input->shape)) return corrupt(error, "INPUT: the shape breaks a rule of the format");
  input->channels = load_u32(section.data + 20);
  if (input->channels != 1 && input->channels != input->shape.extent[0]) {
    return corrupt(error, "INPUT has ", input->channels, " channels; 1 or ", input->shape.extent[0], " may be");
  }
  if (section.bytes != 24 + 8 * uint64_t(input->channels)) {
    return corrupt(error, "INPUT has ", section.bytes, " bytes, which do not hold ", input->channels, " channels");
  }
  if (!all_finite(section.data + 24, 2 * uint64_t(input->channels))) {
    return corrupt(error, "INPUT: mean or inverse_std is not finite");
  }
  input->mean = reinterpret_cast<const float *>(section.data + 24);
  input->inverse_std = input->mean + input->channels;
  for (uint32_t c = 0; c < input->channels; ++c) {
    if (!(input->inverse_std[c] > 0)) {
      return corrupt(error, "INPUT: inverse_std of channel ", c, " is ", input->inverse_std[c], ", not above 0");
    }
  }
  return TKT_OK;
}

tkt_status read_class_weights(Artifact *a, tkt_error *error) {
  const Section section = a->file.find(kClassWeights);
  a->class_weights = nullptr;
  if (section.data == nullptr) return TKT_OK;
  const uint32_t classes = a->graph.output_count();
  if (a->graph.loss != kCrossEntropy) return corrupt(error, "CLASS_WEIGHTS belong to cross-entropy alone");
  if (section.bytes != 4 * uint64_t(classes) || !all_finite(section.data, classes)) {
    return corrupt(error, "CLASS_WEIGHTS do not hold a finite number for each of ", classes, " classes");
  }
  const float *weights = reinterpret_cast<const float *>(section.data);
  bool any = false;
  for (uint32_t c = 0; c < classes; ++c) {
    if (weights[c] < 0) return corrupt(error, "CLASS_WEIGHTS: the weight of class ", c, " is below 0");
    any |= weights[c] > 0;
  }
  if (!any) return corrupt(error, "CLASS_WEIGHTS are all 0");
  a->class_weights = weights;
  return TKT_OK;
}

// What was larger before units without influence were left out.
tkt_status read_origin(Artifact *a, tkt_error *error) {
  const Section section = a->file.find(kOrigin);
  if (section.data == nullptr) return TKT_OK;
  if (section.bytes != 16) return corrupt(error, "ORIGIN has ", section.bytes, " bytes instead of 16");
  const uint64_t dense = load<uint64_t>(section.data), pruned = load<uint64_t>(section.data + 8);
  const bool sound = dense <= kMaxDenseCount && pruned >= a->pruned_layer_weights && dense >= pruned &&
                     dense - pruned >= a->dense_count - a->pruned_layer_weights;
  if (!sound) return corrupt(error, "ORIGIN: a network of ", dense, " floats cannot have become this one");
  a->dense_count = dense;
  a->pruned_layer_weights = pruned;
  return TKT_OK;
}

}  // namespace

tkt_status read_artifact(const void *bytes, size_t size, Artifact *artifact, tkt_error *error) {
  if (bytes == nullptr) return fail(error, TKT_INVALID_INPUT, "artifact is NULL; give the bytes of a .tkt file");
  if (reinterpret_cast<uintptr_t>(bytes) % 8 != 0) {
    return fail(error, TKT_INVALID_INPUT, "artifact is not at an address divisible by 8; copy it to one that is");
  }
  Artifact &a = *artifact;
  if (tkt_status status = read_container(kArtifactFile, bytes, size, &a.file, error)) return status;
  if (tkt_status status = check_presence(a.file, error)) return status;
  if (tkt_status status = read_recipe(a.file.find(kRecipe), &a.recipe, error)) return status;
  if (tkt_status status = read_input(a.file.find(kInput), &a.input, error)) return status;
  if (tkt_status status = read_params(&a, error)) return status;
  if (tkt_status status = read_graph(&a, error)) return status;
  if (tkt_status status = read_origin(&a, error)) return status;
  if (tkt_status status = read_class_weights(&a, error)) return status;
  return read_values(&a, error);
}

}  // namespace tkt
