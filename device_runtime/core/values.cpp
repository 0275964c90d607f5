// INIT, TRAINED and their packed forms, checked, and made what a trainer has.
#include "core/artifact.h"
#include "core/artifact_parts.h"
#include "core/bytes.h"
#include "core/draw.h"

namespace tkt {
namespace {

constexpr uint32_t kPackedHeadBytes = 8, kSeedBytes = 8, kDistributionBytes = 12;

Distribution distribution_of(const Values &drawn, uint32_t param) {
  const uint8_t *from = drawn.data + kSeedBytes + kDistributionBytes * size_t(param);
  return {load_u32(from), load<float>(from + 4), load<float>(from + 8)};
}

bool is_sound_draw(const Artifact &a, const Values &drawn, uint64_t bytes) {
  if (bytes != kSeedBytes + kDistributionBytes * uint64_t(a.parameter_count)) return false;
  bool sound = true;
  for (uint32_t param = 0; param < a.parameter_count; ++param) {
    const Distribution from = distribution_of(drawn, param);
    sound &= is_distribution(from) && (!is_variance(a, param) || (from.kind != kNormal && from.a >= 0));
  }
  return sound;
}

// Half floats have their sign and the begin of their exponent where floats have them.
uint32_t high_bits(const Values &values, uint32_t k) {
  return values.kind == kFloat16 ? uint32_t(load_u16(values.data + 2 * size_t(k))) << 16
                                 : load_u32(values.data + 4 * size_t(k));
}

bool all_finite(const Values &values, uint32_t count) {
  const uint32_t exponent = values.kind == kFloat16 ? 0x7C000000u : 0x7F800000u;
  bool finite = true;
  for (uint32_t k = 0; k < count; ++k) finite &= (high_bits(values, k) & exponent) != exponent;
  return finite;
}

tkt_status read_array(const Artifact &a, uint32_t kind, const char *name, Values *values, tkt_error *error) {
  const Section plain = a.file.find(kind), packed = a.file.find(kind + kPackedInit - kInit);
  Section section = plain.data ? plain : packed;
  *values = {section.data, kWhole};
  if (section.data == nullptr) return TKT_OK;  // TRAINED alone may be missing
  if (packed.data) {
    const bool sound = section.bytes >= kPackedHeadBytes && load_u32(section.data + 4) == 0;
    values->kind = sound ? load_u32(section.data) : kWhole;
    if (values->kind - 1 >= (kind == kInit ? kDrawn : kFloat16)) return corrupt(error, name, " has no sound head");
    section.data += kPackedHeadBytes;
    section.bytes -= kPackedHeadBytes;
    values->data = section.data;
  }
  if (values->kind == kDrawn) {
    const bool sound = is_sound_draw(a, *values, section.bytes);
    return sound ? TKT_OK : corrupt(error, name, " does not say how to draw each parameter");
  }
  const uint32_t count = packed.data ? a.live_count : a.value_count, width = values->kind == kFloat16 ? 2 : 4;
  if (section.bytes != width * uint64_t(count)) {
    return corrupt(error, name, " has ", section.bytes, " bytes, but the parameters have ", count, " values");
  }
  if (!all_finite(*values, count)) return corrupt(error, name, " holds a value that is not finite");
  if (has_negative_variance(a, *values)) return corrupt(error, name, " holds a running variance below 0");
  return check_pruned(a, *values, name, error);
}

// Of an artifact whose `init` is drawn, and unpacked.
void draw_values(const Artifact &a, float *values) {
  const uint64_t seed = load<uint64_t>(a.init.data);
  for (uint32_t param = 0; param < a.parameter_count; ++param) {
    const Distribution from = distribution_of(a.init, param);
    const Matrix m = a.matrix(param);
    for (uint32_t row = 0; row < m.rows; ++row) {
      for (uint32_t k = 0; k < m.entries(row); ++k) {
        values[m.value(row, k)] = draw(from, seed, param, row * m.cols + m.column(row, k));
      }
    }
    m.for_each_pruned(0, m.rows, [&](uint32_t k) { values[k] = 0; });
    values += m.stored;
  }
}

// f32[live_count] at the end of f32[value_count] move to their places, with zeros between; never over one that is still to move.
void spread(const Artifact &a, float *values) {
  const float *next = values + (a.value_count - a.live_count);
  for (uint32_t param = 0; param < a.parameter_count; ++param) {
    const Matrix m = a.matrix(param);
    float *to = values;
    m.for_each_pruned(0, m.rows, [&](uint32_t k) {
      while (to < values + k) *to++ = *next++;
      *to++ = 0;
    });
    values += m.stored;
    while (to < values) *to++ = *next++;
  }
}

}  // namespace

bool has_negative_variance(const Artifact &a, const Values &values) {
  uint32_t first = values.kind == kWhole ? 0 : a.live_count - a.value_count;  // only what comes before is pruned: wraps
  for (uint32_t param = 0, stored = 0; param < a.parameter_count; ++param) {
    const uint32_t count = a.matrix(param).stored;
    if (stored >= a.trained_count && is_variance(a, param)) {
      for (uint32_t k = first; k != first + count; ++k) {
        if (high_bits(values, k) > 0x80000000u) return true;  // -0 is not below 0
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

tkt_status check_pruned(const Artifact &a, const Values &values, const char *name, tkt_error *error) {
  const bool sound = values.kind != kWhole || values.data == nullptr || !has_pruned_value(a, values.data);
  return sound ? TKT_OK : corrupt(error, name, " holds a pruned weight that is not 0");
}

void copy_values(const Artifact &a, const Values &values, void (*expand)(const uint16_t *, float *, size_t),
                 float *out) {
  if (values.kind == kDrawn) return draw_values(a, out);
  const uint32_t count = values.kind == kWhole ? a.value_count : a.live_count;
  float *end = out + (a.value_count - count);
  if (values.kind == kFloat16) {
    expand(reinterpret_cast<const uint16_t *>(values.data), end, count);
  } else {
    memcpy(end, values.data, sizeof(float) * size_t(count));
  }
  if (values.kind != kWhole) spread(a, out);
}

tkt_status read_values(Artifact *a, tkt_error *error) {
  if (tkt_status status = read_array(*a, kInit, "INIT", &a->init, error)) return status;
  return read_array(*a, kTrained, "TRAINED", &a->trained, error);
}

}  // namespace tkt
