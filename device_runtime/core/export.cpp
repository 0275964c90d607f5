// Sections keep their order of kinds, packed ones stay packed; those of a newer minor version, which this runtime skips, are carried along.
#include "core/export.h"

#include "core/container.h"
#include "core/error.h"

namespace tkt {
namespace {

struct ArtifactSections {
  Section at[kMaxSections + 1];
  uint32_t count;
};

ArtifactSections sections_of(const tkt_trainer &trainer) {
  const Container &file = trainer.artifact.file;
  const Section trained = {kTrained, trainer.value_count * uint32_t(sizeof(float)),
                           reinterpret_cast<const uint8_t *>(trainer.values)};
  ArtifactSections s;
  s.count = 0;
  bool placed = false;
  for (uint32_t i = 0; i < file.section_count; ++i) {
    const Section section = file.section(i);
    if (!placed && section.kind >= kTrained) {
      s.at[s.count++] = trained;
      placed = true;
    }
    if (section.kind != kTrained && section.kind != kPackedTrained) s.at[s.count++] = section;
  }
  if (!placed) s.at[s.count++] = trained;
  return s;
}

}  // namespace

tkt_status check_room(const char *what, const void *to, size_t capacity, uint64_t needed, tkt_error *error) {
  if (to == nullptr) return fail(error, TKT_INVALID_INPUT, what, " is NULL; give ", needed, " bytes of memory");
  if (needed > kMaxFileBytes) {
    return fail(error, TKT_INVALID_INPUT, "the ", what, " would have ", needed, " bytes, but a file has at most ",
                kMaxFileBytes, "; prune more");
  }
  if (capacity >= needed) return TKT_OK;
  return fail(error, TKT_INVALID_INPUT, "capacity is ", capacity, " bytes, but the ", what, " has ", needed);
}

tkt_status check_finite(const char *what, const tkt_trainer &trainer, const float *values, uint32_t count,
                        tkt_error *error) {
  if (trainer.kernels->all_finite(values, count)) return TKT_OK;
  return fail(error, TKT_NON_FINITE_LOSS, "training has diverged: a value is not finite, so no ", what,
              " is written; reset the trainer or restore an earlier checkpoint");
}

uint64_t export_bytes(const tkt_trainer &trainer) {
  const ArtifactSections s = sections_of(trainer);
  return container_bytes(s.at, s.count);
}

tkt_status export_artifact(const tkt_trainer &trainer, void *artifact, size_t capacity, tkt_error *error) {
  const ArtifactSections s = sections_of(trainer);
  if (s.count > kMaxSections) {
    return fail(error, TKT_INVALID_INPUT, "the artifact has ", s.count - 1, " sections, and no place for another one");
  }
  const uint64_t bytes = container_bytes(s.at, s.count);
  if (tkt_status status = check_room("artifact", artifact, capacity, bytes, error)) return status;
  if (tkt_status status = check_finite("artifact", trainer, trainer.values, trainer.value_count, error)) return status;
  const Container &file = trainer.artifact.file;
  write_container(kArtifactFile, file.version_minor, file.ticket_hash(), s.at, s.count,
                  static_cast<uint8_t *>(artifact));
  return TKT_OK;
}

}  // namespace tkt
