#version 450
// The end of a product whose inputs were split: adds the sums of the parts, one after the other, and finishes the rows as linear.glsl says.
//
//	x [SPLIT_K, slots, OUT] float32    y [B, OutRows, OUT], float32 or 16 bits
//
// An invocation finishes 4 columns of a slot.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require
layout(constant_id = 27) const uint DTYPE = 1; // 16-bit type of y where Y16: DTYPE_F16 or DTYPE_BF16
#define OPERAND_DTYPE DTYPE
#include "include/address.glsl"
#include "include/linear.glsl"

layout(local_size_x = 256) in;

void main() {
	const uint across = (OUT + 3) / 4;
	uint n = (p.first + workgroup()) * 256 + gl_LocalInvocationIndex, slot = n / across, col = n % across * 4;
	if (slot >= p.slots || !is_filled(slot)) return;
	vec4 sum = vec4(0);
	for (uint part = 0; part < SPLIT_K; part++) sum += load_out(at(p.x, part * p.slots + slot, OUT * 4), col);
	finish(way_out(slot, 1), col, sum);
}
