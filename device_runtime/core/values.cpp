// INIT, TRAINED and their packed forms, checked and read. Values to be drawn from a seed are refused: nothing draws them yet.
#include "core/artifact.h"
#include "core/artifact_parts.h"
#include "core/bytes.h"
#include "core/math.h"

namespace tkt {
namespace {

constexpr uint32_t kPackedHeadBytes = 8;

bool all_finite_halves(const uint8_t *halves, uint32_t count) {
  bool finite = true;
  for (uint32_t i = 0; i < count; ++i) finite &= (load_u16(halves + 2 * size_t(i)) & 0x7C00u) != 0x7C00u;
  return finite;
}

// Finds the array behind the head of a packed section.
tkt_status unpack_head(const char *name, Section *section, Values *values, tkt_error *error) {
  const bool sound = section->bytes >= kPackedHeadBytes && load_u32(section->data + 4) == 0;
  values->kind = sound ? load_u32(section->data) : 0;
  if (values->kind == kDrawn) {  // the values come from draw.h once there is one, here and in copy_values
    return fail(error, TKT_UNSUPPORTED_OP, name,
                " is to be drawn from a seed, which this runtime cannot do; update it or export float32 values");
  }
  if (values->kind < kFloat32 || values->kind > kFloat16) return corrupt(error, "packed ", name, " has no sound head");
  section->data += kPackedHeadBytes;
  section->bytes -= kPackedHeadBytes;
  return TKT_OK;
}

tkt_status read_array(const Artifact &a, uint32_t kind, const char *name, Values *values, tkt_error *error) {
  Section section = a.file.find(kind);
  values->kind = kWhole;
  if (section.data == nullptr) {
    section = a.file.find(kind + kPackedInit - kInit);
    values->data = section.data;
    if (section.data == nullptr) return TKT_OK;  // TRAINED alone may be missing
    if (tkt_status status = unpack_head(name, &section, values, error)) return status;
  }
  const uint32_t count = values->kind == kWhole ? a.value_count : a.live_count;
  const uint32_t width = values->kind == kFloat16 ? 2 : 4;
  if (section.bytes != width * uint64_t(count)) {
    return corrupt(error, name, " has ", section.bytes, " bytes, but the parameters have ", count, " values");
  }
  const bool finite = width == 2 ? all_finite_halves(section.data, count) : all_finite(section.data, count);
  if (!finite) return corrupt(error, name, " holds a value that is not finite");
  values->data = section.data;
  if (has_negative_variance(a, *values)) return corrupt(error, name, " holds a running variance below 0");
  if (values->kind == kWhole && has_pruned_value(a, values->data)) {
    return corrupt(error, name, " holds a pruned weight that is not 0");
  }
  return TKT_OK;
}

}  // namespace

float Values::at(uint32_t k) const {
  if (kind == kFloat16) return float_of_half(load_u16(data + 2 * size_t(k)));
  return load<float>(data + 4 * size_t(k));
}

bool has_negative_variance(const Artifact &a, const Values &values) {
  uint32_t first = values.kind == kWhole ? 0 : a.live_count - a.value_count;  // only what comes before is pruned: wraps
  for (uint32_t param = 0, stored = 0; param < a.parameter_count; ++param) {
    const uint32_t count = a.matrix(param).stored;
    if (stored >= a.trained_count && is_variance(a, param)) {
      for (uint32_t k = first; k != first + count; ++k) {
        if (values.at(k) < 0) return true;
      }
    }
    first += count;
    stored += count;
  }
  return false;
}

bool has_pruned_value(const Artifact &a, const uint8_t *values) {
  uint32_t bits = 0;
  for (uint32_t param = 0; param < a.parameter_count; ++param) {
    const Matrix m = a.matrix(param);
    m.for_each_pruned(0, m.rows, [&](uint32_t k) { bits |= load_u32(values + 4 * size_t(k)); });
    values += 4 * size_t(m.stored);
  }
  return bits << 1 != 0;  // -0 is 0 too
}

void copy_values(const Artifact &a, const Values &values, float *out) {
  if (values.kind == kWhole) {
    memcpy(out, values.data, sizeof(float) * size_t(a.value_count));
    return;
  }
  uint32_t next = 0;
  for (uint32_t param = 0; param < a.parameter_count; ++param) {
    const Matrix m = a.matrix(param);
    uint32_t at = 0;
    const auto copy_until = [&](uint32_t end) {
      for (; at < end; ++at) out[at] = values.at(next++);
    };
    m.for_each_pruned(0, m.rows, [&](uint32_t k) {
      copy_until(k);
      out[at++] = 0;
    });
    copy_until(m.stored);
    out += m.stored;
  }
}

tkt_status read_values(Artifact *artifact, tkt_error *error) {
  Artifact &a = *artifact;
  if (tkt_status status = read_array(a, kInit, "INIT", &a.init, error)) return status;
  return read_array(a, kTrained, "TRAINED", &a.trained, error);
}

}  // namespace tkt
