// What the files that read an artifact share among themselves.
#pragma once

#include "core/artifact.h"
#include "core/error.h"

namespace tkt {

// False if the record `u32 rank, u32 shape[4]` breaks a rule: rank, extents, unused extents, elements.
bool read_shape(const uint8_t *record, Shape *shape);

tkt_status read_params(Artifact *artifact, tkt_error *error);
tkt_status read_graph(Artifact *artifact, tkt_error *error);  // after read_params and the input

// True for a parameter that some node uses as its running variance. After read_graph.
bool is_variance(const Artifact &artifact, uint32_t param);

template <typename... Pieces>
tkt_status corrupt(tkt_error *error, const Pieces &...pieces) {
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
