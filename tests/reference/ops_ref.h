// The row-wise operations in double, straight from their formulas. Matrices are row-major.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace pbserve::reference {

using Values = std::vector<double>;

// y [T, N] = x [T, K] w^T + bias; w [N, K]; bias [N] or empty.
Values linear_ref(const Values& x, const Values& w, const Values& bias, int64_t num_in);

// Each row of `width` values: v / sqrt(mean(v^2) + eps) * weight.
Values rms_norm_ref(const Values& rows, const Values& weight, double eps);

// y [T, F] of gate_up [T, 2 F].
Values silu_mul_ref(const Values& gate_up, int64_t width);

// One head at one position: pairs (i, i + D/2) turned by the float32 angle position * inv_freq[i].
Values rope_ref(std::span<const double> head, std::span<const float> inv_freq, int64_t position,
                double scale);

}  // namespace pbserve::reference
