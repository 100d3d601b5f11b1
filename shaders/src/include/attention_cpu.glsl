// attend for CPU drivers, where barriers are expensive and the tiles of attention.glsl take seconds to compile. A
// workgroup of 8 computes 8 queries, one per invocation, which is one lane of the CPU's vector unit. It processes
// TILE_KEYS keys at a time, with scores and weights in registers.

float results[4 * ROW_VEC4];

// init_query initialises the results, and returns the maximum and the sum before the first key.
vec2 init_query(Query q) {
	for (uint i = 0; i < ROW_VEC4; i++)
		[[unroll]] for (uint c = 0; c < 4; c++) results[4 * i + c] = 0;
#ifdef ATTENTION_NULL
	float s = 0;
	for (uint i = 0; i < ROW_VEC4; i++) {
		vec4 v = load_row(q.address, i), k = load_row(null_key(), i), n = load_row(null_value(), i);
		if (ROW_FACTORS) v *= q.factor;
		s = fma(v.w, k.w, fma(v.z, k.z, fma(v.y, k.y, fma(v.x, k.x, s))));
		[[unroll]] for (uint c = 0; c < 4; c++) results[4 * i + c] = n[c];
	}
	return vec2(clamp_score(s * SCALE, MAX_SCORE), 1);
#else
	return vec2(MASKED_SCORE, 0);
#endif
}

void attend(uint i0, uint j0, uint j1) {
	uint i = i0 + gl_LocalInvocationIndex;
	Query q = query(i);
	vec2 state = init_query(q);
	for (uint tile = j0; tile < j1; tile += TILE_KEYS) {
		uint mask = tile_mask(i0, TILE_QUERIES, tile);
		if (mask == TILE_NONE) continue;
		Key keys[TILE_KEYS];
		bool key_visible[TILE_KEYS];
		uvec2 key_addresses[TILE_KEYS], value_addresses[TILE_KEYS];
		float s[TILE_KEYS], new_max = state.x;
		[[unroll]] for (uint c = 0; c < TILE_KEYS; c++) {
			keys[c] = Key(false, 0, 0, 0);
			if (tile + c < j1) keys[c] = key(tile + c);
			key_visible[c] = keys[c].exists && (mask == TILE_FULL || visible(i, tile + c));
			key_addresses[c] = keys[c].exists ? key_address(keys[c].row) : q.address;
			value_addresses[c] = keys[c].exists ? value_address(keys[c].row) : q.address;
			s[c] = 0;
		}
		for (uint d = 0; d < ROW_VEC4; d++) {
			vec4 v = load_row(q.address, d);
			if (ROW_FACTORS) v *= q.factor;
			[[unroll]] for (uint c = 0; c < TILE_KEYS; c++) {
				vec4 k = load_row(key_addresses[c], d);
				if (ROW_FACTORS) k *= keys[c].key_factor;
				s[c] = fma(v.w, k.w, fma(v.z, k.z, fma(v.y, k.y, fma(v.x, k.x, s[c]))));
			}
		}
		[[unroll]] for (uint c = 0; c < TILE_KEYS; c++) {
			s[c] = clamp_score(s[c] * SCALE, MAX_SCORE);
			if (key_visible[c]) new_max = max(new_max, s[c]);
		}
		float factor = state.x == new_max ? 1.0 : exp2(state.x - new_max), sum = 0;
		[[unroll]] for (uint c = 0; c < TILE_KEYS; c++) {
			s[c] = key_visible[c] ? exp2(s[c] - new_max) : 0;
			sum += s[c];
		}
		state = vec2(new_max, fma(state.y, factor, sum));
		for (uint d = 0; d < ROW_VEC4; d++) {
			vec4 r = vec4(results[4 * d], results[4 * d + 1], results[4 * d + 2], results[4 * d + 3]) * factor;
			[[unroll]] for (uint c = 0; c < TILE_KEYS; c++) {
				vec4 v = load_row(value_addresses[c], d);
				if (ROW_FACTORS) v *= keys[c].value_factor;
				if (key_visible[c]) r = fma(vec4(s[c]), v, r);
			}
			[[unroll]] for (uint c = 0; c < 4; c++) results[4 * d + c] = r[c];
		}
	}
	if (!q.exists) return;
	uvec2 to = result_address(i);
	float factor = state.y > 0 ? 1 / state.y : 0;
	for (uint d = 0; d < ROW_VEC4; d++) store_row(to, d, vec4(results[4 * d], results[4 * d + 1], results[4 * d + 2], results[4 * d + 3]) * factor);
}
