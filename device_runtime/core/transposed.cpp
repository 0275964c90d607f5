// A counting sort by transposed row.
#include "core/transposed.h"

namespace tkt {
namespace {

template <typename Visit>
void for_each_entry(const Matrix &m, const Transposition &t, Visit visit) {
  for (uint32_t r = 0; r < m.rows; r += m.block) {
    for (uint32_t k = 0; k < m.entries(r); ++k) {
      uint32_t row, code;
      if (m.column(r, k) >= t.columns) break;
      t.map(t.context, r, m.column(r, k), &row, &code);
      visit(m.value(r, k), row, code);
    }
  }
}

template <typename Index>
void fill(const Matrix &m, const Transposition &t, uint32_t *starts, Index *from, Index *codes) {
  for_each_entry(m, t, [=](uint32_t, uint32_t row, uint32_t) { ++starts[row + 1]; });
  for (uint32_t r = 0; r < t.rows; ++r) starts[r + 1] += starts[r];
  for_each_entry(m, t, [=](uint32_t k, uint32_t row, uint32_t code) {
    const uint32_t at = starts[row]++;
    from[at] = static_cast<Index>(k);
    codes[at] = static_cast<Index>(code);
  });
  for (uint32_t r = t.rows; r > 0; --r) starts[r] = starts[r - 1];  // each had moved to the next one's start
  starts[0] = 0;
}

}  // namespace

Transposed *lay_out_transposed(const Matrix &m, const Transposition &t, Arena &arena) {
  const bool narrow = m.stored <= 65536 && t.codes <= 65536;
  const uint32_t entries = m.dense() ? m.rows * t.columns : m.stored / m.block;
  Transposed *made = arena.take<Transposed>(kIndex, 1);
  uint32_t *starts = arena.take<uint32_t>(kIndex, uint64_t(t.rows) + 1);
  uint16_t *from16 = narrow ? arena.take<uint16_t>(kIndex, entries) : nullptr;
  uint16_t *codes16 = narrow ? arena.take<uint16_t>(kIndex, entries) : nullptr;
  uint32_t *from32 = narrow ? nullptr : arena.take<uint32_t>(kIndex, entries);
  uint32_t *codes32 = narrow ? nullptr : arena.take<uint32_t>(kIndex, entries);
  if (made == nullptr) return nullptr;
  if (narrow) fill(m, t, starts, from16, codes16);
  if (!narrow) fill(m, t, starts, from32, codes32);
  *made = {t.rows, entries, m.block, starts, from16, codes16, from32, codes32};
  return made;
}

}  // namespace tkt
