// Sections, recipe, input and values; the graph and the parameters have files of their own.
#include "core/artifact.h"

#include "core/artifact_parts.h"
#include "core/bytes.h"
#include "core/error.h"
#include "core/options.h"

namespace tkt {
namespace {

constexpr uint32_t kRecipeBytes = 40, kMaxCardBytes = 1u << 20;

tkt_status check_presence(const Container &file, tkt_error *error) {
  static const char *const names[] = {"CARD", "RECIPE", "INPUT", "GRAPH", "PARAMS", "PATTERN", "INIT"};
  for (uint32_t kind = kCard; kind <= kInit; ++kind) {
    if (file.find(kind).data == nullptr) return corrupt(error, "the artifact has no section ", names[kind - 1]);
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
  if (recipe->optimizer != TKT_SGD && recipe->optimizer != TKT_ADAM) {
    return fail(error, TKT_UNSUPPORTED_OP, "optimizer ", recipe->optimizer,
                " of the recipe is unknown to this runtime; update the runtime or export with 1 (SGD) or 2 (Adam)");
  }
  tkt_options options = options_from(*recipe);
  tkt_error reason;
  if (recipe->reserved != 0 || check_ranges(options, &reason) != TKT_OK) {
    return corrupt(error, "RECIPE: ", recipe->reserved != 0 ? "the reserved word is not 0" : reason.text);
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

tkt_status read_values(const Section &section, const char *name, uint32_t count, const uint8_t **values,
                       tkt_error *error) {
  if (section.bytes != 4 * uint64_t(count)) {
    return corrupt(error, name, " has ", section.bytes, " bytes, but the parameters have ", count, " values");
  }
  if (!all_finite(section.data, count)) return corrupt(error, name, " holds a value that is not finite");
  *values = section.data;
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
  if (tkt_status status = read_values(a.file.find(kInit), "INIT", a.value_count, &a.init, error)) return status;
  Section trained = a.file.find(kTrained);
  a.trained = nullptr;
  return trained.data == nullptr ? TKT_OK : read_values(trained, "TRAINED", a.value_count, &a.trained, error);
}

}  // namespace tkt
