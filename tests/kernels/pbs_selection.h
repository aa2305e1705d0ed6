// Step 2 of PBS against the oracle.
#pragma once

#include <string>

#include "tests/kernels/pbs_case.h"

namespace pbserve::test {

// Orders and selects; then the kernel's mask is to be the oracle's choice on the kernel's own order
// and moments, near ties aside, and the count that of its blocks.
void expect_selected(PbsCase& pbs);

// For the names of tests.
std::string name_of(const PbsParams& params);

}  // namespace pbserve::test
