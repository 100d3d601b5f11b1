// backward of attention_backward.glsl in float32.

const uint SLICE = 4; // vec4 of a slice of a row
const uint SLICES = (ROW_VEC4 + SLICE - 1) / SLICE;
const uint PITCH = SLICE + 1;

// Invocation (x, y) of THREADS_X x THREADS_Y multiplies own rows y, y + THREADS_Y, .. with rows x, x + THREADS_X, .. of the
// others.
const uint PAIRS = OWN_ROWS * OTHER_ROWS / THREADS, OTHER_PAIRS = PAIRS >= 16 ? 4 : 2, OWN_PAIRS = PAIRS / OTHER_PAIRS;
const uint THREADS_X = OTHER_ROWS / OTHER_PAIRS, THREADS_Y = OWN_ROWS / OWN_PAIRS;

// For the sums over other rows, an invocation has one vec4 of SUM_ROWS own rows.
const uint COLUMNS = ROW_VEC4 <= 8 ? 8 : ROW_VEC4 <= 16 ? 16 : 32;
const uint SUM_ROWS = OWN_ROWS * COLUMNS / THREADS;

const uint ROWS = OWN_ROWS + OTHER_ROWS;
shared uvec4 row_addresses[ROWS]; // of q and dy, or of k and v; 0 if the row does not exist. Own rows, then other ones
shared vec2 row_factors[ROWS];    // of a query: its factor; of a key: those of key and value
// A slice of the first row of each pair of rows, then of the second ones; then the weights of the pairs: those of an other
// row are WEIGHT_PITCH vec4, for the products ds * f * g, and after those of all rows for the values p * h.
const uint WEIGHT_PITCH = OWN_ROWS / 4 + 1, VALUE_WEIGHTS = OTHER_ROWS * WEIGHT_PITCH;
#ifdef QUERIES
const uint WEIGHTS = VALUE_WEIGHTS;
#else
const uint WEIGHTS = 2 * VALUE_WEIGHTS;
#endif
const uint SLICE_ROWS = 2 * ROWS * PITCH, PARTS = OWN_ROWS * THREADS_X; // parts: of the softmax and of gradients of scores
const uint SLICE_OR_WEIGHTS = SLICE_ROWS > WEIGHTS ? SLICE_ROWS : WEIGHTS;
shared vec4 slices[SLICE_OR_WEIGHTS > PARTS ? SLICE_OR_WEIGHTS : PARTS];
shared vec4 query_states[OTHER_ROWS > OWN_ROWS ? OTHER_ROWS : OWN_ROWS]; // maximum of the logits, 1 / sum of the weights, delta, f; 0 without keys
shared uint occupied[3]; // whether any row exists: of the tiles with even and odd number, and of the own rows

float products[PAIRS], along[PAIRS]; // q . k and dy . v of pairs of rows

// lookup_query and lookup_key write what row `row` of shared memory is. They return whether the row exists.
bool lookup_query(uint row, uint i, bool inside) {
	Query q = Query(false, uvec2(0), uvec2(0), 0);
#ifdef QUERIES
	if (inside) q = query(i);
#else
	vec4 state = vec4(0);
	if (inside) state = F32x4(at(states(), state_row(i), 16)).v[0];
	query_states[row - OWN_ROWS] = state;
	if (state.w != 0) q = query(i);
	q.factor = state.w;
#endif
	row_addresses[row] = q.exists ? uvec4(q.q, q.dy) : uvec4(0);
	row_factors[row] = vec2(q.factor, 0);
	return q.exists;
}

bool lookup_key(uint row, uint j, bool inside) {
	Key k = Key(false, uvec2(0), uvec2(0), 0, 0);
	if (inside) k = key(j);
	row_addresses[row] = k.exists ? uvec4(k.k, k.v) : uvec4(0);
	row_factors[row] = vec2(k.key_factor, k.value_factor);
	return k.exists;
}

// lookup_own looks the own rows up, and returns whether any exists.
bool lookup_own(uint own, uint own_end) {
	if (gl_LocalInvocationIndex < 3) occupied[gl_LocalInvocationIndex] = 0;
	barrier();
	for (uint n = gl_LocalInvocationIndex; n < OWN_ROWS; n += THREADS) {
#ifdef QUERIES
		bool exists = lookup_query(n, own + n, own + n < own_end);
#else
		bool exists = lookup_key(n, own + n, own + n < own_end);
#endif
		if (exists) atomicOr(occupied[2], 1);
	}
	barrier();
	return occupied[2] != 0;
}

// lookup_other looks up the other rows from first on, and returns whether any exists. number counts the tiles.
bool lookup_other(uint number, uint first, uint end) {
	barrier(); // the tile before is no longer used
	if (gl_LocalInvocationIndex == 0) occupied[(number + 1) % 2] = 0;
	for (uint n = gl_LocalInvocationIndex; n < OTHER_ROWS; n += THREADS) {
		bool inside = first + n < end;
#ifdef QUERIES
		bool exists = lookup_key(OWN_ROWS + n, first + n, inside);
#else
		bool exists = lookup_query(OWN_ROWS + n, first + n, inside);
#endif
		if (exists) atomicOr(occupied[number % 2], 1);
	}
	barrier();
	return occupied[number % 2] != 0;
}

// thread_position is (x, y) of an invocation. 32 consecutive invocations cover 8 x 4 or 16 x 2, so that they read few
// different vec4.
uvec2 thread_position() {
	uint t = gl_LocalInvocationIndex;
	if (PAIRS < 16) return uvec2(t % THREADS_X, t / THREADS_X);
	return uvec2(t % 8 + t / 32 % (THREADS_X / 8) * 8, t / 8 % 4 + t / (4 * THREADS_X) * 4);
}

void load_slice(uint slice, bool both) {
	[[unroll]] for (uint i = 0; i < 2 * ROWS * SLICE / THREADS; i++) { // divisible
		uint n = gl_LocalInvocationIndex + i * THREADS, row = n / SLICE, column = n % SLICE;
		if (row >= ROWS && !both) continue;
		uvec4 pair = row_addresses[row % ROWS];
		uvec2 address = row < ROWS ? pair.xy : pair.zw;
		slices[row * PITCH + column] = present(address) ? load_row(address, slice * SLICE + column) : vec4(0);
	}
}

float add_dot(float sum, vec4 a, vec4 b) { return fma(a.w, b.w, fma(a.z, b.z, fma(a.y, b.y, fma(a.x, b.x, sum)))); }

// multiply computes products, and with `both` along, of the pairs of this invocation.
void multiply(bool both) {
	uvec2 thread = thread_position();
	[[unroll]] for (uint n = 0; n < PAIRS; n++) products[n] = along[n] = 0;
	for (uint slice = 0; slice < SLICES; slice++) {
		if (slice > 0) barrier();
		load_slice(slice, both);
		barrier();
		[[unroll]] for (uint part = 0; part < 2; part++) {
			if (part == 1 && !both) continue;
			[[unroll]] for (uint column = 0; column < SLICE; column++) {
				vec4 other[OTHER_PAIRS];
				[[unroll]] for (uint b = 0; b < OTHER_PAIRS; b++)
					other[b] = slices[(part * ROWS + OWN_ROWS + thread.x + b * THREADS_X) * PITCH + column];
				[[unroll]] for (uint a = 0; a < OWN_PAIRS; a++) {
					vec4 own = slices[(part * ROWS + thread.y + a * THREADS_Y) * PITCH + column];
					[[unroll]] for (uint b = 0; b < OTHER_PAIRS; b++) {
						uint n = a * OTHER_PAIRS + b;
						if (part == 0) products[n] = add_dot(products[n], own, other[b]);
						else along[n] = add_dot(along[n], own, other[b]);
					}
				}
			}
		}
	}
}

// Pair is a query and a key.
struct Pair {
	uint own, other; // rows of their tiles
	uint state; // index in query_states
	bool visible;
	float product, along; // s without factors, in powers of 2; e
	float query_factor, key_factor, value_factor;
	float logit; // s, in powers of 2
	float value; // h * e
};

// pair returns pair n of this invocation, whose tiles start with rows own and other.
Pair pair(uint n, uint own, uint other) {
	uvec2 thread = thread_position();
	Pair p;
	p.own = thread.y + n / OTHER_PAIRS * THREADS_Y;
	p.other = thread.x + n % OTHER_PAIRS * THREADS_X;
	p.visible = present(row_addresses[p.own].xy) && present(row_addresses[OWN_ROWS + p.other].xy);
#ifdef QUERIES
	uint query_row = p.own, key_row = OWN_ROWS + p.other;
	p.state = p.own;
	p.visible = p.visible && visible(own + p.own, other + p.other);
#else
	uint query_row = OWN_ROWS + p.other, key_row = p.own;
	p.state = p.other;
	p.visible = p.visible && visible(other + p.other, own + p.own);
#endif
	p.query_factor = ROW_FACTORS ? row_factors[query_row].x : 1;
	p.key_factor = ROW_FACTORS ? row_factors[key_row].x : 1;
	p.value_factor = ROW_FACTORS ? row_factors[key_row].y : 1;
	p.product = clamp_score(products[n] * SCALE, MAX_SCORE);
	p.logit = ROW_FACTORS ? clamp_score(p.product * (p.query_factor * p.key_factor), MAX_SCORE) : p.product;
	p.along = along[n];
	p.value = p.along * p.value_factor;
	return p;
}

#ifdef QUERIES

// Weights is a running softmax: the maximum of logits, and the sum of weights e^(logit - maximum).
struct Weights {
	float max_logit, sum;
};

Weights add(Weights a, Weights b) {
	float max_logit = max(a.max_logit, b.max_logit), keep_a = exp2(a.max_logit - max_logit), keep_b = exp2(b.max_logit - max_logit);
	return Weights(max_logit, fma(a.sum, keep_a, b.sum * keep_b));
}

// delta_of is delta of own query i, whose rows of q and dy are given.
float delta_of(uint i, uvec4 addresses) {
	if (!present(addresses.xy)) return 0;
	float sum = 0;
	uvec2 y = y_address(i);
	for (uint column = 0; column < ROW_VEC4; column++) sum = add_dot(sum, load_row(addresses.zw, column), load_row(y, column));
	return sum;
}

// compute_states computes the softmax of the own queries, and writes it to states.
void compute_states(uint own, uint own_end, uint other, uint other_end) {
	Weights weights[OWN_PAIRS];
	[[unroll]] for (uint a = 0; a < OWN_PAIRS; a++) weights[a] = Weights(MASKED_SCORE, 0);
	uint number = 0;
	for (uint first = other; first < other_end; first += OTHER_ROWS) {
		if (!lookup_other(number++, first, other_end)) continue;
		multiply(false);
		[[unroll]] for (uint n = 0; n < PAIRS; n++) {
			Pair p = pair(n, own, first);
			if (p.visible) weights[n / OTHER_PAIRS] = add(weights[n / OTHER_PAIRS], Weights(p.logit, 1));
		}
	}
	barrier();
	uvec2 thread = thread_position();
	[[unroll]] for (uint a = 0; a < OWN_PAIRS; a++)
		slices[(thread.y + a * THREADS_Y) * THREADS_X + thread.x] = vec4(weights[a].max_logit, weights[a].sum, 0, 0);
	barrier();
	for (uint row = gl_LocalInvocationIndex; row < OWN_ROWS; row += THREADS) {
		Weights sum = Weights(MASKED_SCORE, 0);
		for (uint x = 0; x < THREADS_X; x++) {
			vec4 part = slices[row * THREADS_X + x];
			sum = add(sum, Weights(part.x, part.y));
		}
		// Without visible keys all is 0. A NaN stays one.
		vec4 state = sum.sum == 0 ? vec4(0) : vec4(sum.max_logit, 1 / sum.sum, delta_of(own + row, row_addresses[row]), row_factors[row].x);
		query_states[row] = state;
		if (own + row < own_end) F32x4(at(states(), state_row(own + row), 16)).v[0] = state;
	}
	barrier();
}

#endif

#ifdef ATTENTION_SCORES
float score_gradient(Pair p, float weight, float dlogit);

float score_sums[OWN_PAIRS]; // of the own rows, over the pairs of this invocation
#endif

// compute_weights writes the weights of the pairs of a tile to shared memory. Nested loops: compilers do not unroll a loop of 16
// long iterations, and then keep the arrays of pairs in memory.
void compute_weights(uint own, uint other) {
	barrier(); // the slices are no longer used
	[[unroll]] for (uint b = 0; b < OTHER_PAIRS; b++)
		[[unroll]] for (uint a = 0; a < OWN_PAIRS; a++) {
			Pair p = pair(a * OTHER_PAIRS + b, own, other);
			vec4 state = query_states[p.state];
			float below = p.logit - state.x; // not above 0 if both kernels compute the same logit
			float weight = exp2(below > 0 ? 0 : below) * state.y, dlogit = weight * (p.value - state.z);
			uint at = p.other * WEIGHT_PITCH + p.own / 4;
			slices[at][p.own % 4] = p.visible ? dlogit * (p.query_factor * p.key_factor) : 0;
#ifdef KEYS
			slices[VALUE_WEIGHTS + at][p.own % 4] = p.visible ? weight * p.value_factor : 0;
#endif
#ifdef ATTENTION_SCORES
			if (ATTENTION_SCORES && p.visible) score_sums[a] += score_gradient(p, weight, dlogit);
#endif
		}
}

vec4 product_sums[SUM_ROWS];
#ifdef KEYS
vec4 value_sums[SUM_ROWS];
#endif

// add_rows adds the rows of a tile, times their weights, to the sums. count rows are inside.
void add_rows(uint column, uint sum_row, uint count) {
	if (column >= ROW_VEC4) return;
	for (uint other = 0; other < count; other += 4) {
		[[unroll]] for (uint c = 0; c < 4; c++) {
			uvec4 pair = row_addresses[OWN_ROWS + other + c];
			vec4 first = present(pair.xy) ? load_row(pair.xy, column) : vec4(0);
#ifdef KEYS
			vec4 second = present(pair.zw) ? load_row(pair.zw, column) : vec4(0);
#endif
			[[unroll]] for (uint r = 0; r < SUM_ROWS; r++) {
				uint at = (other + c) * WEIGHT_PITCH + (sum_row + r) / 4, part = (sum_row + r) % 4;
				product_sums[r] = fma(vec4(slices[at][part]), first, product_sums[r]);
#ifdef KEYS
				value_sums[r] = fma(vec4(slices[VALUE_WEIGHTS + at][part]), second, value_sums[r]);
#endif
			}
		}
	}
}

void write_sums(uint column, uint sum_row, uint own, uint own_end) {
	if (column >= ROW_VEC4) return;
	[[unroll]] for (uint r = 0; r < SUM_ROWS; r++) {
		uint row = sum_row + r;
		if (own + row >= own_end) continue;
		bool exists = present(row_addresses[row].xy);
		vec4 product_sum = exists ? product_sums[r] * (SCALE * LN2) : vec4(0);
#ifdef QUERIES
		store_row(dq_address(own + row), column, product_sum);
#else
		store_row(dk_address(own + row), column, product_sum);
		store_row(dv_address(own + row), column, exists ? value_sums[r] : vec4(0));
#endif
	}
}

#ifdef ATTENTION_SCORES
// write_scores adds the parts of the gradients of factors, and writes those of the rows that are inside.
void write_scores(uint own, uint own_end) {
	uvec2 thread = thread_position();
	barrier();
	[[unroll]] for (uint a = 0; a < OWN_PAIRS; a++) slices[(thread.y + a * THREADS_Y) * THREADS_X + thread.x].x = score_sums[a];
	barrier();
	for (uint row = gl_LocalInvocationIndex; row < OWN_ROWS && own + row < own_end; row += THREADS) {
		float sum = 0;
		for (uint x = 0; x < THREADS_X; x++) sum += slices[row * THREADS_X + x].x;
		write_score(own + row, sum);
	}
}
#endif

void backward(uint own, uint own_end, uint other, uint other_end) {
	if (!lookup_own(own, own_end)) other_end = other;
#ifdef QUERIES
	compute_states(own, own_end, other, other_end);
	if (gl_LocalInvocationIndex < 2) occupied[gl_LocalInvocationIndex] = 0;
#endif
	uint column = gl_LocalInvocationIndex % COLUMNS, sum_row = gl_LocalInvocationIndex / COLUMNS * SUM_ROWS;
	[[unroll]] for (uint r = 0; r < SUM_ROWS; r++) {
		product_sums[r] = vec4(0);
#ifdef KEYS
		value_sums[r] = vec4(0);
#endif
	}
#ifdef ATTENTION_SCORES
	[[unroll]] for (uint a = 0; a < OWN_PAIRS; a++) score_sums[a] = 0;
#endif
	uint number = 0;
	for (uint first = other; first < other_end; first += OTHER_ROWS) {
		if (!lookup_other(number++, first, other_end)) continue;
		multiply(true);
		compute_weights(own, first);
		barrier();
		add_rows(column, sum_row, min(OTHER_ROWS, other_end - first));
	}
	write_sums(column, sum_row, own, own_end);
#ifdef ATTENTION_SCORES
	if (ATTENTION_SCORES) write_scores(own, own_end);
#endif
}
