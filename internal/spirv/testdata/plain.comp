// --target-env=vulkan1.2
#version 460
// Shared variables of every kind, a push block with scalars, names kept.
layout(local_size_x = 8, local_size_y = 4, local_size_z = 2) in;
layout(push_constant, std430) uniform Push { uvec2 x; uvec2 y; uint n; float eps; } p;
struct Pair { float a; vec3 b; bool c; };
shared float row[3];   // 12
shared vec3 three[5];  // 80
shared Pair pairs[2];  // 2 * 32
shared bool flag;      // 4
shared mat3 turn;      // 48
void main() {
	uint i = gl_LocalInvocationIndex;
	row[i % 3] = p.eps;
	three[i % 5] = vec3(p.n);
	pairs[i & 1].c = flag;
	turn[i % 3] = three[i % 5] * pairs[1].a;
	flag = row[0] > turn[1][2];
}
