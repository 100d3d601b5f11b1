// Specialisation constants of attention kernels with 16-bit operands, forward and backward.
#ifndef COLT5_ATTENTION16
#define COLT5_ATTENTION16

layout(constant_id = 20) const uint MATRIX_M = 16; // shape of a matrix product: M x K times K x N
layout(constant_id = 21) const uint MATRIX_N = 16;
layout(constant_id = 22) const uint MATRIX_K = 16;
layout(constant_id = 23) const uint SUBGROUP_SIZE = 32; // invocations of a subgroup
layout(constant_id = 24) const uint SUBGROUPS = 4; // subgroups of a workgroup
layout(constant_id = 25) const uint THREADS = 128; // invocations of a workgroup: SUBGROUPS * SUBGROUP_SIZE
layout(constant_id = 26) const bool WEIGHTS_IN_REGISTERS = true; // weights need no shared memory if the device permits
layout(constant_id = 27) const bool LOCKSTEP = false; // the invocations of a subgroup run in lockstep and need no barrier

#endif
