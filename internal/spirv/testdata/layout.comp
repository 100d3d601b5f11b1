// --target-env=vulkan1.2
#version 460
#extension GL_EXT_buffer_reference : require
// Every way to lay out a push block.
layout(local_size_x = 1) in;
layout(buffer_reference) buffer Node;
layout(buffer_reference, std430, buffer_reference_align = 16) buffer Node { Node next; float v; };
struct Inner { vec2 a; float b[3]; };
layout(push_constant, std430) uniform Push {
	Node head;                       // 0, 8
	vec3 c;                          // 16, 12
	layout(row_major) mat2x3 rows;   // 32, 8 + 8 + 8
	mat3x2 columns[2];               // 56, 24 each
	Inner inner[2];                  // 104, 24 each; the last float of each is followed by 4 bytes of padding
	layout(offset = 160) uint last;  // 160, 4
} p;
void main() { p.head.next.v = p.c.x + p.rows[0].x + p.columns[1][0].x + p.inner[1].b[2] + float(p.last); }
