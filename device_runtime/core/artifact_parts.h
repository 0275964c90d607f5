// What the files that read an artifact share among themselves.
#pragma once

#include "core/artifact.h"
#include "core/error.h"

namespace tkt {

// False if the record `u32 rank, u32 shape[4]` breaks a rule: rank, extents, unused extents, elements.
bool read_shape(const uint8_t *record, Shape *shape);

tkt_status read_params(Artifact *artifact, tkt_error *error);
tkt_status check_packed_head(Artifact *artifact, uint32_t patterns, tkt_error *error);  // by read_params
tkt_status read_graph(Artifact *artifact, tkt_error *error);   // after read_params and the input
tkt_status read_values(Artifact *artifact, tkt_error *error);  // after read_graph

// Refuses pruned weights that are not 0; while the pattern is packed, none is known.
tkt_status check_pruned(const Artifact &artifact, const Values &values, const char *name, tkt_error *error);

enum Encoding : uint32_t { kDense = 0, kColumns16, kColumns32, kBlocksOf4, kBlocksOf8, kMasked };

// Of PARAMS. The columns that PATTERN holds are of the live weights, or where all are stored of the pruned ones.
struct Record {
  uint32_t encoding, rows, cols, nnz, row_ptr, col_idx;

  uint64_t elements() const { return uint64_t(rows) * cols; }
  uint32_t block() const { return encoding == kBlocksOf8 ? 8 : encoding == kBlocksOf4 ? 4 : 1; }
  uint32_t stored() const { return encoding == kMasked ? rows * cols : nnz; }
  uint32_t columns() const { return encoding == kMasked ? rows * cols - nnz : nnz / block(); }
  uint32_t width() const { return encoding == kColumns32 ? 4 : 2; }  // bytes of a column
};
Record read_record(const Section &params, uint32_t param);

// True for a parameter that some node uses as its running variance. After read_graph.
bool is_variance(const Artifact &artifact, uint32_t param);

template <typename... Pieces>
tkt_status corrupt(tkt_error *error, Pieces... pieces) {
  return fail(error, TKT_CORRUPT_ARTIFACT, pieces..., "; export the artifact again");
}

// For a file that is right, but holds more of something than this build takes.
inline tkt_status too_large(tkt_error *error, const char *noun, uint32_t count, uint32_t limit, const char *macro) {
  return fail(error, TKT_INCOMPATIBLE_ARTIFACT, "the network has ", count, " ", noun, ", but this build takes at most ",
              limit, "; build the runtime with a larger ", macro);
}

// A set of small numbers on the stack.
template <uint32_t kSize>
class NumberSet {
 public:
  bool has(uint32_t n) const { return (bits_[n / 32] >> (n % 32) & 1u) != 0; }
  void add(uint32_t n) { bits_[n / 32] |= 1u << (n % 32); }

 private:
  uint32_t bits_[(kSize + 31) / 32] = {};
};

}  // namespace tkt
