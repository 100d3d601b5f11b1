// --target-env=vulkan1.2
#version 460
void main() {}
