// A checkpoint is never written that could not be restored: values that are not finite are refused.
#include "core/checkpoint.h"

#include "core/bytes.h"
#include "core/container.h"
#include "core/crc32.h"
#include "core/error.h"
#include "core/export.h"
#include "core/options.h"

namespace tkt {
namespace {

enum CheckpointSection : uint32_t { kState = 1, kCheckpointValues, kMoment1, kMoment2 };

// As it stands in the file.
struct State {
  uint64_t step, epoch, seed;
  uint32_t position, optimizer;
  double beta1_power, beta2_power;
  uint32_t moment_count, value_count;
  uint32_t layout, reserved;
};
static_assert(sizeof(State) == 64, "STATE has 64 bytes");

// Of the values, and of each array of the optimizer.
uint32_t array_count(const tkt_trainer &trainer, uint32_t array) {
  return array == 0 ? trainer.value_count : trainer.trained_count;
}
uint32_t array_bytes(const tkt_trainer &trainer, uint32_t array) {
  return array_count(trainer, array) * uint32_t(sizeof(float));
}

// Values and moments, `*count` of them.
struct Arrays {
  const float *at[3];
  uint32_t count;
};

Arrays arrays_of(const tkt_trainer &trainer) {
  return {{trainer.values, trainer.moment1, trainer.moment2}, 1 + moment_count(trainer.options)};
}

struct CheckpointSections {
  Section at[4];
  uint32_t count;
};

CheckpointSections sections_of(const tkt_trainer &trainer, const State &state) {
  const Arrays arrays = arrays_of(trainer);
  CheckpointSections s = {};
  s.at[0] = {kState, sizeof state, reinterpret_cast<const uint8_t *>(&state)};
  for (uint32_t i = 0; i < arrays.count; ++i) {
    s.at[1 + i] = {kCheckpointValues + i, array_bytes(trainer, i), reinterpret_cast<const uint8_t *>(arrays.at[i])};
  }
  s.count = 1 + arrays.count;
  return s;
}

// Of what says which weight a value is: two artifacts of one ticket may order as many values differently.
uint32_t layout_of(const Artifact &artifact) {
  const uint32_t params = crc32(artifact.params.data, artifact.params.bytes);
  return crc32(artifact.pattern.data, artifact.pattern.bytes, params);
}

State state_of(const tkt_trainer &trainer) {
  const Progress &p = trainer.progress;
  return {p.step,
          p.epoch,
          p.seed,
          p.position,
          trainer.options.optimizer,
          p.beta1_power,
          p.beta2_power,
          moment_count(trainer.options),
          trainer.value_count,
          layout_of(trainer.artifact),
          0};
}

template <typename... Pieces>
tkt_status corrupt_checkpoint(tkt_error *error, Pieces... pieces) {
  return fail(error, TKT_CORRUPT_CHECKPOINT, "the checkpoint ", pieces..., "; use another one");
}

// Every update multiplies it by a beta below 1; NaN fails.
bool is_power_of_beta(double power, const State &state) {
  if (state.step == 0 || state.optimizer == TKT_SGD) return power == 1;
  return power >= 0 && power < 1;
}

tkt_status read_state(const Container &file, State *state, tkt_error *error) {
  Section section = file.find(kState);
  if (section.data == nullptr || section.bytes != sizeof *state) return corrupt_checkpoint(error, "has no sound STATE");
  memcpy(state, section.data, sizeof *state);
  bool known = state->optimizer >= TKT_SGD && state->optimizer <= TKT_ADAMW;
  bool sound = known && state->moment_count <= 2 && state->reserved == 0 && state->position < UINT32_MAX;
  if (!sound) return corrupt_checkpoint(error, "has a field in STATE that may not be");
  if (is_power_of_beta(state->beta1_power, *state) && is_power_of_beta(state->beta2_power, *state)) return TKT_OK;
  return corrupt_checkpoint(error, "has beta powers ", state->beta1_power, " and ", state->beta2_power, " at step ",
                            state->step, ", which cannot be");
}

// -0.0 is not below 0.
bool any_below_zero(const Section &floats) {
  bool below = false;
  for (uint32_t i = 0; i < floats.bytes; i += 4) below |= load_u32(floats.data + i) > 0x80000000u;
  return below;
}

// What finite arrays of the right size may still break.
tkt_status check_moment(const Section &section, const State &state, tkt_error *error) {
  if (state.step == 0 && !all_zero(section.data, section.bytes)) {
    return corrupt_checkpoint(error, "has a moment in section ", section.kind, " that is not 0 at step 0");
  }
  if (section.kind == kMoment2 && any_below_zero(section)) {
    return corrupt_checkpoint(error, "has a second moment (section 4) below 0");
  }
  return TKT_OK;
}

// The arrays are those that STATE announces, whole, finite and such as training can leave them.
tkt_status check_arrays(const tkt_trainer &trainer, const Container &file, const State &state, tkt_error *error) {
  if (state.value_count != trainer.value_count) {
    return corrupt_checkpoint(error, "has ", state.value_count, " values, but the artifact has ", trainer.value_count,
                              " (one export of a ticket may leave out units that another keeps)");
  }
  if (state.layout != 0 && state.layout != layout_of(trainer.artifact)) {
    return corrupt_checkpoint(error, "is of another export of the ticket, which stores its values in another order");
  }
  bool any_pruned = false;
  for (uint32_t kind = kCheckpointValues; kind <= kMoment2; ++kind) {
    const uint32_t array = kind - kCheckpointValues;
    Section section = file.find(kind);
    bool announced = kind <= kCheckpointValues + state.moment_count;
    bool sound =
        announced ? section.data != nullptr && section.bytes == array_bytes(trainer, array) : section.data == nullptr;
    if (!sound) return corrupt_checkpoint(error, "lacks section ", kind, " or has it in excess");
    if (announced && !all_finite(section.data, array_count(trainer, array))) {
      return corrupt_checkpoint(error, "has a value in section ", kind, " that is not finite");
    }
    any_pruned |= announced && has_pruned_value(trainer.artifact, section.data);
    if (announced && kind != kCheckpointValues) {
      if (tkt_status status = check_moment(section, state, error)) return status;
    }
  }
  if (has_negative_variance(trainer.artifact, {file.find(kCheckpointValues).data, kWhole})) {
    return corrupt_checkpoint(error, "has a running variance below 0");
  }
  if (any_pruned) return corrupt_checkpoint(error, "has a pruned weight, or a moment of one, that is not 0");
  return TKT_OK;
}

tkt_status check_origin(const tkt_trainer &trainer, const Container &file, tkt_error *error) {
  const uint8_t *theirs = file.ticket_hash(), *ours = trainer.artifact.file.ticket_hash();
  if (memcmp(theirs, ours, kTicketHashBytes) == 0) return TKT_OK;
  return corrupt_checkpoint(error, "was made from ticket ", Hex{theirs, 4}, ", but this trainer has ", Hex{ours, 4});
}

tkt_status check_optimizer(const tkt_trainer &trainer, const State &state, tkt_error *error) {
  const uint32_t moments = moment_count(trainer.options);
  if (state.optimizer == trainer.options.optimizer && state.moment_count == moments) return TKT_OK;
  return fail(error, TKT_INVALID_INPUT, "the checkpoint is of optimizer ", state.optimizer, " with ",
              state.moment_count, " arrays of state, but the trainer has optimizer ", trainer.options.optimizer,
              " with ", moments, "; open the trainer with the checkpoint's optimizer and momentum");
}

}  // namespace

uint64_t checkpoint_bytes(const tkt_trainer &trainer) {
  const State state = {};
  const CheckpointSections s = sections_of(trainer, state);
  return container_bytes(s.at, s.count);
}

tkt_status save(const tkt_trainer &trainer, void *checkpoint, size_t capacity, tkt_error *error) {
  const State state = state_of(trainer);
  const CheckpointSections s = sections_of(trainer, state);
  const uint64_t bytes = container_bytes(s.at, s.count);
  if (tkt_status status = check_room("checkpoint", checkpoint, capacity, bytes, error)) return status;
  const Arrays arrays = arrays_of(trainer);
  for (uint32_t i = 0; i < arrays.count; ++i) {
    if (tkt_status status = check_finite("checkpoint", trainer, arrays.at[i], array_count(trainer, i), error))
      return status;
  }
  write_container(kCheckpointFile, 0, trainer.artifact.file.ticket_hash(), s.at, s.count,
                  static_cast<uint8_t *>(checkpoint));
  return TKT_OK;
}

tkt_status restore(tkt_trainer &trainer, const void *checkpoint, size_t size, tkt_error *error) {
  Container file;
  State state;
  if (checkpoint == nullptr) return fail(error, TKT_INVALID_INPUT, "checkpoint is NULL; give the bytes of one");
  if (tkt_status status = read_container(kCheckpointFile, checkpoint, size, &file, error)) return status;
  if (tkt_status status = check_origin(trainer, file, error)) return status;
  if (tkt_status status = read_state(file, &state, error)) return status;
  if (tkt_status status = check_arrays(trainer, file, state, error)) return status;
  if (tkt_status status = check_optimizer(trainer, state, error)) return status;
  float *const arrays[3] = {trainer.values, trainer.moment1, trainer.moment2};
  for (uint32_t i = 0; i <= state.moment_count; ++i) {
    memcpy(arrays[i], file.find(kCheckpointValues + i).data, array_bytes(trainer, i));
  }
  trainer.progress = {state.step, state.epoch, state.seed, state.position, state.beta1_power, state.beta2_power};
  return TKT_OK;
}

}  // namespace tkt
