// --target-env=vulkan1.2
#version 460
#extension GL_EXT_shared_memory_block : require
// Shared blocks with an explicit layout lie on top of each other.
layout(local_size_x = 32) in;
shared A { float a[100]; };
shared B { uvec4 b[30]; uint c; };
void main() { a[gl_LocalInvocationIndex] = float(b[0].x); c = 1; }
