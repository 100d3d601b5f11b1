// Device memory accessed by 64-bit addresses. An address is a uvec2 (low word, high word), so that shaderInt64 is not
// needed. Requires GL_EXT_buffer_reference and GL_EXT_buffer_reference_uvec2. Memory that is read as vec4 is 16-byte
// aligned; pipelines checks it.
#ifndef COLT5_ADDRESS
#define COLT5_ADDRESS

layout(buffer_reference, std430, buffer_reference_align = 4) buffer F32 { float v[]; };
layout(buffer_reference, std430, buffer_reference_align = 16) buffer F32x4 { vec4 v[]; };
layout(buffer_reference, std430, buffer_reference_align = 4) buffer U32 { uint v[]; };
layout(buffer_reference, std430, buffer_reference_align = 8) buffer U32x2 { uvec2 v[]; };
layout(buffer_reference, std430, buffer_reference_align = 16) buffer U32x4 { uvec4 v[]; };

// present reports whether an optional argument was given: its address is not 0.
bool present(uvec2 base) { return (base.x | base.y) != 0; }

// at returns the address base + row * stride, stride in bytes. Use it for rows, which may lie beyond 4 GiB, and index
// within the row.
uvec2 at(uvec2 base, uint row, uint stride) {
	uint hi, lo, carry;
	umulExtended(row, stride, hi, lo);
	lo = uaddCarry(base.x, lo, carry);
	return uvec2(lo, base.y + hi + carry);
}

// byte_at returns element i of a u8 tensor whose base is a multiple of 4. It reads the whole word that contains the
// element.
uint byte_at(uvec2 base, uint i) { return (U32(base).v[i >> 2] >> ((i & 3) * 8)) & 0xffu; }

// workgroup_index is the linear index of the workgroup. vk.Grid may fold a grid into two dimensions, with some workgroups too
// many: compare the index with the count in the push block.
uint workgroup_index() { return gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x; }

#endif
