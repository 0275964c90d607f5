// Threads that share the work of a step. Every element is computed whole by one of them, in the order of FORMAT.md, so that
// results do not depend on how many there are.
#pragma once

#include "core/trainer.h"

namespace tkt {

constexpr uint32_t kMaxThreads = 64;

// Rows that a kernel computes together stay together.
constexpr uint32_t kRowsOfPart = 8;

// Does part `part` of `parts`.
using PartFunction = void (*)(const void *context, uint32_t part, uint32_t parts);

// Memory of the threads besides the caller's, out of the arena; nullptr if there are none, or while it only counts.
Team *lay_out_team(const tkt_options &options, Arena &arena);

// Starts and ends them. False if the system gives no more threads; none is left running then.
bool start_team(Team *team);
void stop_team(Team *team);

// Runs work(context, part, parts) for every part, side by side, and returns when all are done. `cost` is about the number of
// vector operations.
void in_parts(const tkt_trainer &trainer, uint64_t cost, PartFunction work, const void *context);

// Calls work(context, first, last) for parts of `count` things of the same cost, which are multiples of `unit` or end it.
using RangeFunction = void (*)(const void *context, uint32_t first, uint32_t last);
void range_in_parts(const tkt_trainer &trainer, uint32_t count, uint32_t unit, uint64_t cost, RangeFunction work,
                    const void *context);

// Calls work(context, first, last) for parts of the rows of a matrix, `vectors` operations an entry.
void rows_in_parts(const tkt_trainer &trainer, const Matrix &m, uint64_t vectors, RangeFunction work,
                   const void *context);

// The same for anything that is called like that.
template <typename Work>
void call_work(const void *context, uint32_t a, uint32_t b) {
  (*static_cast<const Work *>(context))(a, b);
}
template <typename Work>
void in_parts(const tkt_trainer &trainer, uint64_t cost, const Work &work) {
  in_parts(trainer, cost, call_work<Work>, &work);
}
template <typename Work>
void range_in_parts(const tkt_trainer &trainer, uint32_t count, uint32_t unit, uint64_t cost, const Work &work) {
  range_in_parts(trainer, count, unit, cost, call_work<Work>, &work);
}
template <typename Work>
void rows_in_parts(const tkt_trainer &trainer, const Matrix &m, uint64_t vectors, const Work &work) {
  rows_in_parts(trainer, m, vectors, call_work<Work>, &work);
}

// Calls work(first, last) for parts of the groups at work, `vectors` operations each.
template <typename Work>
void groups_in_parts(const tkt_trainer &trainer, uint64_t vectors, const Work &work) {
  range_in_parts(trainer, trainer.groups, 1, trainer.groups * vectors, work);
}

// Where part `part` of `count` things begins, a multiple of `unit` or the end.
inline uint32_t part_begin(uint32_t count, uint32_t unit, uint32_t part, uint32_t parts) {
  const uint64_t units = (uint64_t(count) + unit - 1) / unit, begin = units * part / parts * unit;
  return begin < count ? static_cast<uint32_t>(begin) : count;
}

// The same for rows of a matrix, or others whose entries begin at begin_of(row): parts with about as many entries each.
template <typename BeginOf>
uint32_t part_of_rows(uint32_t rows, uint32_t unit, uint32_t part, uint32_t parts, const BeginOf &begin_of) {
  if (part == parts) return rows;  // with those at the end that have no entries
  const uint64_t wanted = uint64_t(begin_of(rows)) * part / parts;
  uint32_t low = 0, high = (rows + unit - 1) / unit;
  while (low < high) {
    const uint32_t middle = low + (high - low) / 2;
    if (begin_of(middle * unit) < wanted)
      low = middle + 1;
    else
      high = middle;
  }
  return low * unit < rows ? low * unit : rows;
}

inline uint32_t first_row_of_part(const Matrix &m, uint32_t part, uint32_t parts) {
  return part_of_rows(m.rows, kRowsOfPart, part, parts, [&](uint32_t row) { return m.row_begin(row); });
}

}  // namespace tkt
