// What the kernels of attention_backward_matrix.glsl and attention_backward_lowreg.glsl know about the rows of a workgroup, and
// how they read them. Rows are multiplied by their factors before the products. A row with an element that is infinite or
// NaN is read with finite numbers, because 0 * infinity would be NaN, and marked.
//
// The including file declares ROW_CHUNKS and PITCH, tile and own_tile.

#ifdef QUERIES
const uint STATES = OWN_ROWS;
shared uvec2 own_results[OWN_ROWS]; // addresses of the rows of y
#else
const uint STATES = 2 * OTHER_ROWS; // of this tile and of the next one
#endif
shared uvec4 own_addresses[OWN_ROWS];         // of q and dy, or of k and v; 0 if the row does not exist
shared uvec4 other_addresses[2 * OTHER_ROWS]; // of this tile and of the next one
shared vec4 query_states[STATES]; // with QUERIES: maximum of the products, 0, delta, 1 / sum of the weights
shared vec2 own_factors[ROW_FACTORS ? OWN_ROWS : 1], other_factors[ROW_FACTORS ? 2 * OTHER_ROWS : 1];
shared uint own_infinite[OWN_ROWS], other_infinite[2 * OTHER_ROWS]; // 1: an element of the row is infinite or NaN
// The start of the tiles in both buffers, if some of their rows exist, do not exist, or are infinite.
shared uint some_exist[2], some_missing[2], some_infinite[2];
shared uint own_state[2]; // whether some own rows exist, and are infinite

#if defined(MERGED) && defined(QUERIES)
shared uint own_lists[OWN_ROWS], other_lists[2 * OTHER_ROWS]; // bits of the lists that a query belongs to, and that see a key
#elif defined(MERGED)
shared uvec4 own_slots[OWN_ROWS]; // of slots_of
#endif

#include "row_chunks.glsl"

// infinite returns a chunk whose words are not 0 where an element is infinite or NaN: exponents of all ones, to which
// adding 1 carries into the sign bit.
uvec4 infinite(uvec4 v) {
	const uint last = OPERAND_DTYPE == DTYPE_BF16 ? 7 : 10; // lowest bit of an exponent
	return (v & 0x7fff7fffu) + (0x00010001u << last) & 0x80008000u;
}

// make_finite makes the elements that infinite found large numbers.
uvec4 make_finite(uvec4 v, uvec4 found) {
	const uint last = OPERAND_DTYPE == DTYPE_BF16 ? 7 : 10;
	return v & ~(found >> (15 - last));
}

bool is_nan(float v) { return (floatBitsToUint(v) & 0x7fffffffu) > 0x7f800000u; }

bool any_bits(uvec4 v) { return (v.x | v.y | v.z | v.w) != 0; }

// lookup_own finds the own rows from own on; those from own_end on do not exist.
void lookup_own(uint own, uint own_end) {
	for (uint n = gl_LocalInvocationIndex; n < OWN_ROWS; n += THREADS) {
#ifdef QUERIES
		Query row = Query(false, uvec2(0), uvec2(0), 0);
		if (own + n < own_end) row = query(own + n);
		own_addresses[n] = row.exists ? uvec4(row.q, row.dy) : uvec4(0);
		own_results[n] = row.exists ? y_address(own + n) : uvec2(0);
#ifdef MERGED
		own_lists[n] = row.exists ? 1u << list_of_query(own + n) : 0;
#endif
		if (ROW_FACTORS) own_factors[n] = row.exists ? vec2(row.factor, 1) : vec2(0);
#else
		Key row = Key(false, uvec2(0), uvec2(0), 0, 0);
		if (own + n < own_end) row = key(own + n);
		own_addresses[n] = row.exists ? uvec4(row.k, row.v) : uvec4(0);
#ifdef MERGED
		own_slots[n] = row.exists ? slots_of(own + n) : uvec4(0);
#endif
		if (ROW_FACTORS) own_factors[n] = row.exists ? vec2(row.key_factor, row.value_factor) : vec2(0);
#endif
		own_infinite[n] = 0;
		if (row.exists) own_state[0] = 1;
	}
}

// lookup_other finds the other rows from first on, for buffer buf, 0 or 1; those from end on do not exist.
void lookup_other(uint buf, uint first, uint end) {
	for (uint n = gl_LocalInvocationIndex; n < OTHER_ROWS; n += THREADS) {
		uint at_row = buf * OTHER_ROWS + n;
		bool inside = first < end && n < end - first;
#ifdef QUERIES
		Key row = Key(false, uvec2(0), uvec2(0), 0, 0);
		if (inside) row = key(first + n);
		other_addresses[at_row] = row.exists ? uvec4(row.k, row.v) : uvec4(0);
#ifdef MERGED
		uvec4 named = uvec4(0);
		if (row.exists) named = min(slots_of(first + n), uvec4(1));
		other_lists[at_row] = named.x | named.y << 1 | named.z << 2 | named.w << 3;
#endif
		if (ROW_FACTORS) other_factors[at_row] = row.exists ? vec2(row.key_factor, row.value_factor) : vec2(0);
#else
		Query row = Query(false, uvec2(0), uvec2(0), 0);
		vec4 state = vec4(0);
#ifdef MERGED
		inside = inside && is_query(first + n);
#endif
		if (inside) state = F32x4(at(states(), state_row(first + n), 16)).v[0];
		if (state.w != 0) row = query(first + n); // NaN is not 0
		query_states[at_row] = state;
		other_addresses[at_row] = row.exists ? uvec4(row.q, row.dy) : uvec4(0);
		if (ROW_FACTORS) other_factors[at_row] = row.exists ? vec2(state.w, 1) : vec2(0);
#endif
		other_infinite[at_row] = 0;
#ifdef KEYS
		if (is_nan(state.x) || is_nan(state.y) || is_nan(state.z)) {
			other_infinite[at_row] = 1;
			some_infinite[buf] = first;
		}
#endif
		if (row.exists) some_exist[buf] = first;
		else some_missing[buf] = first;
	}
}

// finite_own returns a chunk of an own row with finite elements, and marks the row if some were not.
uvec4 finite_own(uint row, uvec4 v) {
	uvec4 found = infinite(v);
	if (any_bits(found)) {
		v = make_finite(v, found);
		own_infinite[row] = own_state[1] = 1;
	}
	return v;
}

#ifdef QUERIES
// chunk_product returns the sum of the products of the elements of two chunks.
float chunk_product(uvec4 a, uvec4 b) {
	float sum = 0;
	[[unroll]] for (uint j = 0; j < 4; j++) {
		vec2 x = unpack16(OPERAND_DTYPE, a[j]), y = unpack16(OPERAND_DTYPE, b[j]);
		sum = fma(x.y, y.y, fma(x.x, y.x, sum));
	}
	return sum;
}

// finite_delta returns delta, or NaN if it is infinite.
float finite_delta(float delta) { return (floatBitsToUint(delta) & 0x7f800000u) != 0x7f800000u ? delta : uintBitsToFloat(0x7fc00000u); }
#endif
