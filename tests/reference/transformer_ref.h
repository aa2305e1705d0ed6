// The whole network in double, written from the formulas: every position of a sequence at once,
// causal attention over all of it, no cache, no packing. What the product's logits are held
// against.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "models/config.h"

namespace pbserve::reference {

// Parameters by their names in the checkpoint.
using WeightMap = std::map<std::string, std::vector<double>>;

// All tensors of a model folder. REQUIRES: the folder is a valid model.
WeightMap load_weights(const std::string& folder);

// logits [T, V] of ids [T].
std::vector<double> transformer_logits(const models::ModelConfig& config, const WeightMap& weights,
                                       std::span<const int32_t> ids);

// The `count` tokens that follow `prompt`, each the first of the largest logits.
std::vector<int32_t> greedy_tokens(const models::ModelConfig& config, const WeightMap& weights,
                                   std::vector<int32_t> prompt, int count);

}  // namespace pbserve::reference
