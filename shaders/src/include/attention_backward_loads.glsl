// How the kernels of attention_backward_matrix.glsl load rows. Include attention_backward_rows.glsl first.

// Rows that may be float32.
#if defined(FLOAT_ROWS) && defined(QUERIES)
#define FLOAT_OTHER_ROWS
#elif defined(FLOAT_ROWS)
#define FLOAT_OWN_ROWS
#endif

// prefetch loads the other rows of a tile into registers, without those that are float32. It is called unconditionally, also for
// the tile after the last one, which has no rows: a conditional load makes compilers copy the registers at the join, and the
// copy waits for the load.
void prefetch(uint buf) {
	[[unroll]] for (uint n = 0; n < LOADS; n++) {
		uint e = gl_LocalInvocationIndex + n * THREADS, row = e / ROW_CHUNKS;
		next_first[n] = next_second[n] = uvec4(0);
		if (OTHER_ROWS * ROW_CHUNKS % THREADS != 0 && row >= OTHER_ROWS) continue;
		uvec4 addresses = other_addresses[buf * OTHER_ROWS + row];
		bool load = present(addresses.xy);
#ifdef FLOAT_OTHER_ROWS
		load = load && !is_float(addresses.xy);
#endif
		if (load) next_first[n] = load_chunk16(addresses.xy, e % ROW_CHUNKS);
		if (load) next_second[n] = load_chunk16(addresses.zw, e % ROW_CHUNKS);
	}
}

// store_tile writes the prefetched rows of the tile that starts with row `first` to shared memory.
void store_tile(uint buf, uint first) {
	[[unroll]] for (uint n = 0; n < LOADS; n++) {
		uint e = gl_LocalInvocationIndex + n * THREADS, row = e / ROW_CHUNKS;
		if (OTHER_ROWS * ROW_CHUNKS % THREADS != 0 && row >= OTHER_ROWS) continue;
		uvec4 a = next_first[n], b = next_second[n];
#ifdef FLOAT_OTHER_ROWS
		uvec4 addresses = other_addresses[buf * OTHER_ROWS + row];
		if (is_float(addresses.xy)) {
			a = load_chunk(addresses.xy, e % ROW_CHUNKS);
			b = load_chunk(addresses.zw, e % ROW_CHUNKS);
		}
#endif
		if (ROW_FACTORS) {
			vec2 factors = other_factors[buf * OTHER_ROWS + row];
			a = scale16(a, factors.x);
			b = scale16(b, factors.y);
		}
		uvec4 found_a = infinite(a), found_b = infinite(b);
		if (any_bits(found_a | found_b)) {
			a = make_finite(a, found_a);
			b = make_finite(b, found_b);
			other_infinite[buf * OTHER_ROWS + row] = 1;
			some_infinite[buf] = first;
		}
		tile[row * PITCH + e % ROW_CHUNKS] = a;
		tile[(OTHER_ROWS + row) * PITCH + e % ROW_CHUNKS] = b;
	}
}

// load_own loads the own rows of both kinds, without those that are float32, and with QUERIES the rows of y.
void load_own() {
	[[unroll]] for (uint n = 0; n < OWN_LOADS; n++) {
		uint e = gl_LocalInvocationIndex + n * THREADS, row = e / ROW_CHUNKS;
		own_chunks[0][n] = own_chunks[1][n] = uvec4(0);
#ifdef QUERIES
		result_chunks[n] = uvec4(0);
#endif
		if (OWN_ROWS * ROW_CHUNKS % THREADS != 0 && row >= OWN_ROWS) continue;
		uvec4 addresses = own_addresses[row];
		bool load = present(addresses.xy);
#ifdef FLOAT_OWN_ROWS
		load = load && !is_float(addresses.xy);
#endif
		if (load) own_chunks[0][n] = load_chunk16(addresses.xy, e % ROW_CHUNKS);
		if (load) own_chunks[1][n] = load_chunk16(addresses.zw, e % ROW_CHUNKS);
#ifdef QUERIES
		if (load) result_chunks[n] = load_chunk16(own_results[row], e % ROW_CHUNKS);
#endif
	}
}

// store_own writes the own rows of a kind, 0 or 1, to shared memory. With QUERIES and kind 1 it writes the parts of delta, the
// products of chunks of dy and of y, to scratch.
void store_own(uint kind) {
	[[unroll]] for (uint n = 0; n < OWN_LOADS; n++) {
		uint e = gl_LocalInvocationIndex + n * THREADS, row = e / ROW_CHUNKS, c = e % ROW_CHUNKS;
		if (OWN_ROWS * ROW_CHUNKS % THREADS != 0 && row >= OWN_ROWS) continue;
		uvec4 v = own_chunks[kind][n];
#ifdef FLOAT_OWN_ROWS
		uvec2 address = kind == 0 ? own_addresses[row].xy : own_addresses[row].zw;
		if (is_float(address)) v = load_chunk(address, c);
#endif
		if (ROW_FACTORS) v = scale16(v, own_factors[row][kind]);
		v = finite_own(row, v);
		if (OWN_IN_REGISTERS) tile[row * PITCH + c] = v;
		else own_tile[OWN_IN_REGISTERS ? 0 : (kind * OWN_ROWS + row) * PITCH + c] = v;
#ifdef QUERIES
		if (kind == 1) scratch[row * SCRATCH_PITCH + c / 4][c % 4] = floatBitsToUint(chunk_product(v, result_chunks[n]));
#endif
	}
}
