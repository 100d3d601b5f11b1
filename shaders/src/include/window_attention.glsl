// Constants of the kernels of window attention.
#ifndef COLT5_WINDOW_ATTENTION
#define COLT5_WINDOW_ATTENTION

layout(constant_id = 9) const uint WINDOW = 1; // tokens of a block; reach of a query if not CAUSAL
layout(constant_id = 10) const bool CAUSAL = false; // queries attend to their own block up to themselves, and to the previous block
layout(constant_id = 11) const bool EXACT = false; // only with CAUSAL: queries attend to WINDOW tokens before them

#endif
