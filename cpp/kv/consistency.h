// The consistency asserts: figures that must agree, each read from its own place at one moment, compared before a step
// runs on them.
#pragma once
#include "kv/sequence.h"

namespace foundry {

/// ConsistencyError names the two figures that differ. n_rows: about to be run at the position, within what kernels are
/// told.
void check_consistent(const Sequence::Observed& observed);

}  // namespace foundry
