// Slots of a router's list, as gather and scatter read them. Include address.glsl first.
#ifndef COLT5_SLOT
#define COLT5_SLOT

// Slot is a place in a list of selected rows. It is empty if its valid word is 0 or its index is not a row. A slot with
// score 0 is not empty, but contributes nothing either.
struct Slot {
	bool writes; // not empty, and the score is not 0
	uint row;    // in the tensor that the list indexes, counted over all batch items
	float score; // 1 without scores
};

// read_slot reads a slot of lists [B, k] of rows of a tensor [B, n, C]. scores and valid are optional.
Slot read_slot(uint slot, uvec2 indices, uvec2 scores, uvec2 valid, uint k, uint n) {
	uint index = U32(indices).v[slot]; // a negative index is at least 2^31, hence not below n
	Slot s = Slot(index < n, slot / k * n + index, 1);
	if (present(scores)) {
		s.score = F32(scores).v[slot];
		s.writes = s.writes && s.score != 0;
	}
	if (present(valid)) s.writes = s.writes && U32(valid).v[slot] != 0;
	return s;
}

#endif
