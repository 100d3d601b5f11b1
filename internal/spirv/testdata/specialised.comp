// --target-env=vulkan1.2 -O
#version 460
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
// Sizes that hang on specialisation constants, optimised: no names.
layout(local_size_x_id = 0, local_size_y_id = 1) in;
layout(constant_id = 0) const uint SIZE = 64; // the same number as local_size_x_id
layout(constant_id = 7) const int TILE = 4;
layout(constant_id = 8) const bool WIDE = false;
layout(constant_id = 9) const float SCALE = 2.5;
const int ROWS = (WIDE ? TILE * 3 + 1 : TILE / 2) << 1;
layout(buffer_reference, std430, buffer_reference_align = 4) buffer F32 { float v[]; };
layout(push_constant, std430) uniform Push { uvec2 y; uint n; } p;
shared vec4 tile[ROWS][TILE];
shared float partial[gl_WorkGroupSize.x * gl_WorkGroupSize.y];
void main() {
	uint i = gl_LocalInvocationIndex;
	tile[i % ROWS][i % TILE] = vec4(SCALE);
	partial[i] = float(p.n + SIZE);
	barrier();
	tile[0][0].x += partial[i ^ 1u];
	F32(p.y).v[i] = tile[0][1].y + tile[0][0].x;
}
