// Constants of the kernels of routed attention.
#ifndef COLT5_ROUTED_ATTENTION
#define COLT5_ROUTED_ATTENTION

layout(constant_id = 9) const uint ROUTES = 1; // key lists of a list; head h uses list h / (HEADS / ROUTES)
layout(constant_id = 10) const uint KEY_SOURCE = 0; // KEYS_OWN, KEYS_INDEXED or KEYS_PREFIX
layout(constant_id = 11) const bool VALID = false; // key slots with valid = 0 are empty
layout(constant_id = 12) const bool QUERY_VALID = false; // query slots with query_valid = 0 are empty
layout(constant_id = 13) const bool SCORE_VALUES = false; // multiply values by key_scores
layout(constant_id = 14) const bool SCORE_KEYS = false; // multiply keys by key_scores
layout(constant_id = 15) const bool SCORE_QUERIES = false; // multiply queries by query_scores

const uint KEYS_OWN = 0, KEYS_INDEXED = 1, KEYS_PREFIX = 2;
const uint MERGED_LISTS = 4; // lists whose keys the backward pass merges: routed_attention_backward_merge.comp

#endif
