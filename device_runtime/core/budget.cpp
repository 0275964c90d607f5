// Smaller parts cost next to no time, but batch normalisation sees less of a batch: networks that have it are computed twice
// before they are computed in parts, all others the other way round.
#include "core/budget.h"

#include <string.h>

#include "core/error.h"
#include "core/kernels.h"
#include "core/operators.h"
#include "core/options.h"
#include "core/plan.h"

namespace tkt {
namespace {

// Smaller parts of a batch, down to single samples.
uint32_t smaller_part(uint32_t part) {
  if (part > 2 * kMaxLanes) return (part / 2 + kMaxLanes - 1) / kMaxLanes * kMaxLanes;
  return part > kMaxLanes ? kMaxLanes : part > 8 ? 8 : 1;
}

bool gathers_statistics(const Artifact &artifact) {
  Node node;
  for (Nodes nodes(artifact.graph); nodes.next(&node);) {
    if (find_operator(node.op)->commit) return true;
  }
  return false;
}

class Search {
 public:
  Search(Planned *planned, const tkt_options &given) : p_(*planned), given_(given) {}

  // False if there is no plan, since a buffer is too large to be counted.
  bool run() {
    const uint32_t last = kRecomputations - 1;
    if (given_.recompute != 0 || gathers_statistics(p_.artifact)) {
      in_parts(0, last);
    } else if (!in_parts(0, 0)) {
      in_parts(1, last);
    }
    const bool planned_last = tried_part_ == part_ && tried_recomputation_ == recomputation_ && complete_;
    return sound_ && (planned_last || count(part_, recomputation_, true));
  }

 private:
  // Of the recomputations [first, last] the first that fits the budget, or the smallest if that is wished for; for the whole
  // batch or, unless the caller has set it, for parts of it. False if none fits.
  bool in_parts(uint32_t first, uint32_t last) {
    for (uint32_t part = part_of(given_); sound_; part = smaller_part(part)) {
      for (uint32_t r = first; r <= last && sound_; ++r) {
        sound_ = count(part, r, false);
        if (sound_ && p_.counted.total() < least_) {
          least_ = p_.counted.total();
          part_ = part;
          recomputation_ = r;
        }
        if (fits() && given_.recompute == 0) break;
      }
      if (fits() || given_.micro_batch != 0 || part == 1) break;
    }
    return fits();
  }

  bool fits() const { return given_.budget_bytes == 0 || least_ <= given_.budget_bytes; }

  // Plans of as many lanes have the same units, so that few of them are made unless a complete one is needed.
  bool count(uint32_t part, uint32_t recomputation, bool complete) {
    const uint32_t lanes = lanes_for(part);
    if (lanes != lanes_) memset(units_, 0, sizeof units_);
    lanes_ = lanes;
    complete_ = complete || units_[recomputation] == 0;
    if (complete_ && !make_plan(part, recomputation)) return false;
    if (complete_) units_[recomputation] = p_.memory.units;
    p_.memory.units = units_[recomputation];
    p_.memory.groups = (part + lanes - 1) / lanes;
    p_.options.micro_batch = part == part_of(given_) ? given_.micro_batch : part;
    p_.counted = Arena();
    lay_out(p_.artifact, p_.options, p_.memory, p_.counted, nullptr, nullptr);
    tried_part_ = part;
    tried_recomputation_ = recomputation;
    return true;
  }

  // Halves beside what they are made of take more memory where nothing else is kept meanwhile.
  bool make_plan(uint32_t part, uint32_t recomputation) {
    const bool halves = given_.half_activations != 0;
    if (!make_memory_plan(p_.artifact, part, recomputation, false, &p_.memory)) return false;
    const uint32_t whole = p_.memory.units;
    if (!halves) return true;
    const bool saves = make_memory_plan(p_.artifact, part, recomputation, true, &p_.memory) && p_.memory.units < whole;
    return saves || make_memory_plan(p_.artifact, part, recomputation, false, &p_.memory);
  }

  Planned &p_;
  const tkt_options &given_;
  uint64_t least_ = ~uint64_t(0);  // bytes, of these two
  uint32_t part_ = 0, recomputation_ = 0;
  uint32_t tried_part_ = 0, tried_recomputation_ = 0;
  uint32_t lanes_ = 0, units_[kRecomputations];  // 0: not known yet
  bool sound_ = true, complete_ = false;
};

}  // namespace

tkt_status plan(const void *artifact, size_t artifact_bytes, const tkt_options *options, Planned *planned,
                tkt_error *error) {
  if (tkt_status status = read_artifact(artifact, artifact_bytes, &planned->artifact, error)) return status;
  if (tkt_status status = check_options(options, planned->artifact, error)) return status;
  planned->options = *options;
  if (Search(planned, *options).run()) return TKT_OK;
  return fail(error, TKT_BUDGET_EXCEEDED, "a buffer of the network has more than 2^28 floats with its padding");
}

}  // namespace tkt
