// Constants of the kernels of patch attention.
#ifndef COLT5_PATCH_ATTENTION
#define COLT5_PATCH_ATTENTION

layout(constant_id = 9) const uint PATCH_SIZE = 1; // pixels along a side of a patch

#endif
