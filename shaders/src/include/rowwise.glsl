// Kernels that process rows element by element: a workgroup of 256 invocations covers one long row or several short
// ones. Include address.glsl first.
#ifndef COLT5_ROWWISE
#define COLT5_ROWWISE

#ifdef VEC4 // rows have a multiple of 4 floats, so they start at multiples of 16 bytes
#define T vec4
#define ROW F32x4
#define T_BYTES 16
#else
#define T float
#define ROW F32
#define T_BYTES 4
#endif

layout(constant_id = 0) const uint COLUMNS = 1; // elements of type T in a row
const uint STRIDE = COLUMNS * T_BYTES;
const uint THREADS = 256;
const uint ROWS_PER_WORKGROUP = COLUMNS < THREADS ? THREADS / COLUMNS : 1;

layout(local_size_x = 256) in;

// An invocation processes columns first_column(), first_column() + THREADS, ... of row own_row().
uint own_row() { return workgroup_index() * ROWS_PER_WORKGROUP + gl_LocalInvocationID.x / COLUMNS; }
uint first_column() { return gl_LocalInvocationID.x % COLUMNS; }

// idle reports that the invocation has no row: it is left over from a whole number of rows, or its row is past the last
// one.
bool idle(uint rows) { return gl_LocalInvocationID.x / COLUMNS >= ROWS_PER_WORKGROUP || own_row() >= rows; }

#endif
