#version 460
// What a step of the optimiser needs beside the gradients: the factor of the gradients, the learning rate, the bias
// corrections, whether the step is skipped, and the next loss scale.
//
//	norm [2] words of gradient_norm    loss [2] f32: sum of losses, count of labels
//	state [16] words, see include/optimizer_state.glsl    records [capacity, 8] words optional
//
//	inverse = 1 / (count * scale), or 0 if there is no label
//	factor = inverse * min(1, clip / (norm * inverse + 1e-6))
//
// records has one row per step, in row (steps modulo capacity): steps u32, t u32, skip u32, and as f32 loss, norm,
// rate, the scale that the step used, count. One invocation computes everything.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_GOOGLE_include_directive : require
#include "include/address.glsl"
#include "include/optimizer_state.glsl"

layout(local_size_x = 1) in;

const uint CONSTANT = 0, COSINE = 1, INVERSE_SQRT = 2; // schedules

layout(push_constant) uniform Push {
	uvec2 norm, loss, state, records;
	float clip;                 // 0: no clipping
	float log_beta1, log_beta2; // logarithms of AdamW's betas
	float peak, floor;          // learning rates
	uint schedule, warm, total; // steps: warm at least 1, total at least warm
	uint growth_interval;       // steps without overflow after which the scale doubles; 0: the scale is constant
	uint capacity;              // rows of records
} p;

const float HALF_PI = 1.5707963267948966, MIN_SCALE = 1.0 / 16777216, MAX_SCALE = 16777216;

// cosine_square returns cos(pi / 2 * x)^2 for x in [0, 1]. Vulkan's cos is exact to 2^-11 only.
float cosine_square(float x) {
	float y = HALF_PI * min(x, 1 - x), z = y * y;
	float c = 1 - z / 2 * (1 - z / 12 * (1 - z / 30 * (1 - z / 56)));
	float s = y * (1 - z / 6 * (1 - z / 20 * (1 - z / 42 * (1 - z / 72))));
	return x <= 0.5 ? c * c : s * s;
}

// rate returns the learning rate of update t, from 1.
float rate(uint t) {
	if (t < p.warm) return p.peak * (float(t) / float(p.warm));
	if (p.schedule == INVERSE_SQRT) return p.peak * sqrt(float(p.warm) / float(t));
	if (p.schedule != COSINE) return p.peak;
	if (t >= p.total) return p.floor;
	return p.floor + (p.peak - p.floor) * cosine_square(float(t - p.warm) / float(p.total - p.warm));
}

// correction returns 1 - exp(x), for x below 0. Near 0 the difference would have few correct bits.
float correction(float x) {
	x = max(x, -87.0);
	if (x < -0.5) return 1 - exp(x);
	float series = 1;
	for (uint i = 9; i > 1; i--) series = 1 + x / float(i) * series;
	return -x * series;
}

void main() {
	U32 words = U32(p.state);
	F32 floats = F32(p.state);
	uint steps = words.v[STATE_STEPS], updates = words.v[STATE_UPDATES], good = words.v[STATE_GOOD];
	float scale = floats.v[STATE_SCALE], count = F32(p.loss).v[1];
	bool overflow = U32(p.norm).v[1] != 0;

	float inverse = count > 0 ? 1 / (count * scale) : 0, loss = count > 0 ? F32(p.loss).v[0] / count : 0;
	float norm = count > 0 ? F32(p.norm).v[0] * inverse : 0;
	float clipped = p.clip > 0 ? min(1.0, p.clip / (norm + 1e-6)) : 1;
	if (!overflow) updates++;
	float learning_rate = rate(max(updates, 1));
	floats.v[STATE_FACTOR] = inverse * clipped;
	floats.v[STATE_RATE] = learning_rate;
	floats.v[STATE_STEP_SIZE] = learning_rate / correction(float(updates) * p.log_beta1);
	floats.v[STATE_INVERSE] = 1 / correction(float(updates) * p.log_beta2);
	floats.v[STATE_LOSS] = loss;
	floats.v[STATE_NORM] = norm;
	floats.v[STATE_LABELS] = count;
	words.v[STATE_SKIP] = overflow ? 1 : 0;
	words.v[STATE_STEPS] = steps + 1;
	words.v[STATE_UPDATES] = updates;
	if (present(p.records)) {
		uvec2 row = at(p.records, steps % p.capacity, 32);
		U32x4(row).v[0] = uvec4(steps, updates, overflow ? 1 : 0, floatBitsToUint(loss));
		U32x4(row).v[1] = floatBitsToUint(vec4(norm, learning_rate, scale, count));
	}

	if (p.growth_interval == 0) return;
	if (overflow) {
		floats.v[STATE_SCALE] = max(scale / 2, MIN_SCALE);
		words.v[STATE_GOOD] = 0;
	} else if (good + 1 < p.growth_interval) {
		words.v[STATE_GOOD] = good + 1;
	} else {
		floats.v[STATE_SCALE] = min(scale * 2, MAX_SCALE);
		words.v[STATE_GOOD] = 0;
	}
}
