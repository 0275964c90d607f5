// The options of a trainer: defaults from the recipe, and one error for each way to be wrong.
#pragma once

#include "core/artifact.h"
#include "ticket_runtime.h"

namespace tkt {

// Seed 0, no budget, kernels AUTO, start INIT.
tkt_options options_from(const Recipe &recipe);

tkt_status check_learning_rate(float learning_rate, tkt_error *error);

// Only the fields themselves; neither artifact nor machine matter.
tkt_status check_ranges(const tkt_options &options, tkt_error *error);

// Also against the artifact. `options` may be NULL, which is an error.
tkt_status check_options(const tkt_options *options, const Artifact &artifact, tkt_error *error);

// Arrays of trained_count floats that the optimizer keeps: 0, 1 or 2.
uint32_t moment_count(const tkt_options &options);

}  // namespace tkt
