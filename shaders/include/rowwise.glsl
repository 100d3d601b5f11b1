// What gather and scatter share: rows of C floats dealt out to a workgroup, and what a slot says. address.glsl comes first.
#ifndef COLT5_ROWWISE
#define COLT5_ROWWISE

#ifdef VEC4 // C is a multiple of 4, so every row starts at a multiple of 16 bytes
#define T vec4
#define ROW F32x4
#define BYTES 16
#else
#define T float
#define ROW F32
#define BYTES 4
#endif

layout(constant_id = 0) const uint COLUMNS = 1; // elements of type T in a row
const uint STRIDE = COLUMNS * BYTES;
const uint THREADS = 256;
const uint ROWS = COLUMNS < THREADS ? THREADS / COLUMNS : 1; // of a workgroup; a long row takes all threads, several times over

layout(local_size_x = 256) in;

// thread_row is the row that this thread works on, thread_column where it starts in it; it goes on in steps of THREADS.
uint thread_row() { return workgroup() * ROWS + gl_LocalInvocationID.x / COLUMNS; }
uint thread_column() { return gl_LocalInvocationID.x % COLUMNS; }

// idle threads: those that a whole number of rows leaves over, and those past the last row.
bool idle(uint rows) { return gl_LocalInvocationID.x / COLUMNS >= ROWS || thread_row() >= rows; }

// Slot is one place in a list of chosen rows. An empty one has the filled word 0, the score 0, or names no row.
struct Slot {
	bool filled;
	uint row;    // of the tensor that the slots point into, over all batch items
	float score; // 1 if there are none
};

Slot read_slot(uint slot, uvec2 indices, uvec2 scores, uvec2 filled, uint k, uint n) {
	uint index = U32(indices).v[slot]; // a negative one is a large one here
	Slot s = Slot(index < n, slot / k * n + index, 1);
	if (present(scores)) {
		s.score = F32(scores).v[slot];
		s.filled = s.filled && s.score != 0;
	}
	if (present(filled)) s.filled = s.filled && U32(filled).v[slot] != 0;
	return s;
}

#endif
