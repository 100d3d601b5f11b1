// attend for CPU drivers, where barriers are dear and the tiles of attention.glsl take seconds to compile: an invocation, one lane of the
// CPU's vectors, has a query, and a workgroup of 8 goes through the keys 16 at a time, whose scores and weights stay in registers.

float results[4 * D4];

// begin gives the query its state before the first key: maximum and sum.
vec2 begin(Query q) {
	for (uint i = 0; i < D4; i++)
		[[unroll]] for (uint c = 0; c < 4; c++) results[4 * i + c] = 0;
#ifdef ATTENTION_NULL
	float s = 0;
	for (uint i = 0; i < D4; i++) {
		vec4 v = load_row(q.at, i), k = load_row(null_key(), i), n = load_row(null_value(), i);
		if (ROW_FACTORS) v *= q.factor;
		s = fma(v.w, k.w, fma(v.z, k.z, fma(v.y, k.y, fma(v.x, k.x, s))));
		[[unroll]] for (uint c = 0; c < 4; c++) results[4 * i + c] = n[c];
	}
	return vec2(bounded(s * SCALE, LARGEST), 1);
#else
	return vec2(HIDDEN, 0);
#endif
}

void attend(uint i0, uint j0, uint j1) {
	uint i = i0 + gl_LocalInvocationIndex;
	Query q = query(i);
	vec2 state = begin(q);
	for (uint tile = j0; tile < j1; tile += TILE_KEYS) {
		uint sees = sight(i0, TILE_QUERIES, tile);
		if (sees == NOTHING) continue;
		Key keys[TILE_KEYS];
		bool seen[TILE_KEYS];
		uvec2 at_key[TILE_KEYS], at_value[TILE_KEYS];
		float s[TILE_KEYS], most = state.x;
		[[unroll]] for (uint c = 0; c < TILE_KEYS; c++) {
			keys[c] = Key(false, 0, 0, 0);
			if (tile + c < j1) keys[c] = key(tile + c);
			seen[c] = keys[c].exists && (sees == EVERYTHING || visible(i, tile + c));
			at_key[c] = keys[c].exists ? key_at(keys[c].row) : q.at;
			at_value[c] = keys[c].exists ? value_at(keys[c].row) : q.at;
			s[c] = 0;
		}
		for (uint d = 0; d < D4; d++) {
			vec4 v = load_row(q.at, d);
			if (ROW_FACTORS) v *= q.factor;
			[[unroll]] for (uint c = 0; c < TILE_KEYS; c++) {
				vec4 k = load_row(at_key[c], d);
				if (ROW_FACTORS) k *= keys[c].key_factor;
				s[c] = fma(v.w, k.w, fma(v.z, k.z, fma(v.y, k.y, fma(v.x, k.x, s[c]))));
			}
		}
		[[unroll]] for (uint c = 0; c < TILE_KEYS; c++) {
			s[c] = bounded(s[c] * SCALE, LARGEST);
			if (seen[c]) most = max(most, s[c]);
		}
		float factor = state.x == most ? 1.0 : exp2(state.x - most), sum = 0;
		[[unroll]] for (uint c = 0; c < TILE_KEYS; c++) {
			s[c] = seen[c] ? exp2(s[c] - most) : 0;
			sum += s[c];
		}
		state = vec2(most, fma(state.y, factor, sum));
		for (uint d = 0; d < D4; d++) {
			vec4 r = vec4(results[4 * d], results[4 * d + 1], results[4 * d + 2], results[4 * d + 3]) * factor;
			[[unroll]] for (uint c = 0; c < TILE_KEYS; c++) {
				vec4 v = load_row(at_value[c], d);
				if (ROW_FACTORS) v *= keys[c].value_factor;
				if (seen[c]) r = fma(vec4(s[c]), v, r);
			}
			[[unroll]] for (uint c = 0; c < 4; c++) results[4 * d + c] = r[c];
		}
	}
	if (!q.exists) return;
	uvec2 to = result_at(i);
	float factor = state.y > 0 ? 1 / state.y : 0;
	for (uint d = 0; d < D4; d++) store_row(to, d, vec4(results[4 * d], results[4 * d + 1], results[4 * d + 2], results[4 * d + 3]) * factor);
}
