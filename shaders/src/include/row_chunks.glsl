// Rows of 16-bit elements in chunks of 16 bytes: 8 elements. Include address.glsl and pack16.glsl first, and declare DIM_HEAD
// and PADDED_DIM before the include: DIM_HEAD, and the multiple of 8 to which rows are padded with zeros. Define FLOAT_ROWS if
// rows whose address is odd are float32: the address is one more than that of the row.

#ifndef FLOAT_ROWS
#define load_chunk16 load_chunk
#endif

// load_chunk reads elements 8 i .. 8 i + 7 of a row; 0 past its end. load_chunk16 does so for a row of 16-bit elements.
uvec4 load_chunk16(uvec2 row, uint i) {
	if (DIM_HEAD % 8 == 0) return DIM_HEAD == PADDED_DIM || i < DIM_HEAD / 8 ? U32x4(row).v[i] : uvec4(0);
	uvec4 v = uvec4(0);
	[[unroll]] for (uint j = 0; j < 4; j++)
		if (8 * i + 2 * j < DIM_HEAD) v[j] = U32(row).v[4 * i + j];
	return v;
}

#ifdef FLOAT_ROWS
bool is_float(uvec2 row) { return (row.x & 1) != 0; }

uvec4 load_chunk(uvec2 row, uint i) {
	if (!is_float(row)) return load_chunk16(row, i);
	vec4 a = load_row(uvec2(row.x - 1, row.y), 2 * i), b = load_row(uvec2(row.x - 1, row.y), 2 * i + 1);
	return uvec4(pack16(OPERAND_DTYPE, a.xy), pack16(OPERAND_DTYPE, a.zw), pack16(OPERAND_DTYPE, b.xy), pack16(OPERAND_DTYPE, b.zw));
}
#endif

void store_chunk(uvec2 row, uint i, uvec4 v) {
#ifdef FLOAT_ROWS
	if (is_float(row)) {
		uvec2 floats = uvec2(row.x - 1, row.y);
		[[unroll]] for (uint j = 0; j < 2; j++)
			if (2 * i + j < ROW_VEC4) store_row(floats, 2 * i + j, vec4(unpack16(OPERAND_DTYPE, v[2 * j]), unpack16(OPERAND_DTYPE, v[2 * j + 1])));
		return;
	}
#endif
	if (DIM_HEAD % 8 == 0) {
		if (DIM_HEAD == PADDED_DIM || i < DIM_HEAD / 8) U32x4(row).v[i] = v;
		return;
	}
	[[unroll]] for (uint j = 0; j < 4; j++)
		if (8 * i + 2 * j < DIM_HEAD) U32(row).v[4 * i + j] = v[j];
}

// scale16 multiplies the elements of a chunk by a factor.
uvec4 scale16(uvec4 v, float f) {
	[[unroll]] for (uint j = 0; j < 4; j++) v[j] = pack16(OPERAND_DTYPE, unpack16(OPERAND_DTYPE, v[j]) * f);
	return v;
}
