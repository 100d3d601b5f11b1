// Shared by linear_backward.comp and linear_backward_cpu.comp: configuration, arguments, and where sums go. Include
// address.glsl first.

layout(constant_id = 0) const uint IN = 1; // elements in a row of x
layout(constant_id = 1) const uint OUT = 1; // elements in a row of dy
layout(constant_id = 30) const bool ADD = false; // add to dw

layout(push_constant) uniform Push {
	uvec2 dy, x, dw;
	uint rows, rows_per_part, parts; // of an item
	uint first, tiles;               // this dispatch computes tiles first .. tiles - 1, workgroup g tile first + g
} p;

// Tile is the work of a workgroup: the rows `row` .. `row` + `count` - 1 of dy and x, counted over the items, and the
// elements of dw from (out0, in0) on. slice is the number of the part, counted over the items.
struct Tile { uint slice, row, count, out0, in0; };

Tile tile_of(uint index, uint tile_out, uint tile_in) {
	uint tiles_in = (IN + tile_in - 1) / tile_in, tiles = (OUT + tile_out - 1) / tile_out * tiles_in;
	uint slice = index / tiles, i = index % tiles, first = slice % p.parts * p.rows_per_part;
	uint row = slice / p.parts * p.rows + first;
	return Tile(slice, row, min(p.rows_per_part, p.rows - first), i / tiles_in * tile_out, i % tiles_in * tile_in);
}

// store writes or adds a sum to dw, or with several parts to the part's matrix in scratch memory.
void store(uint slice, uint o, uint i, float sum) {
	if (o >= OUT || i >= IN) return;
	F32 row = F32(at(p.dw, slice * OUT + o, IN * 4));
	row.v[i] = ADD ? row.v[i] + sum : sum;
}
