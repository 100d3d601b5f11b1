// Device memory by 64-bit addresses held in uvec2, without shaderInt64. A shader that includes this declares
// GL_EXT_buffer_reference and GL_EXT_buffer_reference_uvec2. Ranges that are read four floats at a
// time start at multiples of 16 bytes (pipelines checks it).
#ifndef COLT5_ADDRESS
#define COLT5_ADDRESS

layout(buffer_reference, std430, buffer_reference_align = 4) buffer F32 { float v[]; };
layout(buffer_reference, std430, buffer_reference_align = 16) buffer F32x4 { vec4 v[]; };
layout(buffer_reference, std430, buffer_reference_align = 4) buffer U32 { uint v[]; };
layout(buffer_reference, std430, buffer_reference_align = 8) buffer U32x2 { uvec2 v[]; };
layout(buffer_reference, std430, buffer_reference_align = 16) buffer U32x4 { uvec4 v[]; };

// present says whether an optional argument was given.
bool present(uvec2 base) { return (base.x | base.y) != 0; }

// at is base + row * stride bytes. Use it for the row of a tensor, which may lie beyond 4 GiB, and index within the row.
uvec2 at(uvec2 base, uint row, uint stride) {
	uint hi, lo, carry;
	umulExtended(row, stride, hi, lo);
	lo = uaddCarry(base.x, lo, carry);
	return uvec2(lo, base.y + hi + carry);
}

// byte_at reads element i of a uint8 tensor whose base is a multiple of 4. It touches the whole word that holds it.
uint byte_at(uvec2 base, uint i) { return (U32(base).v[i >> 2] >> ((i & 3) * 8)) & 0xffu; }

// workgroup is the flat number of a workgroup in a grid folded by vk's Grid; compare it with the count in the push block.
uint workgroup() { return gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x; }

#endif
