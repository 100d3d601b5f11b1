// Which tiles of other rows a workgroup has to compute: tile_mask, by own rows and other rows.

// mask_of is tile_mask of n own rows and a tile of other rows.
uint mask_of(uint own, uint n, uint first) {
#ifdef QUERIES
	return tile_mask(own, n, first, OTHER_ROWS);
#else
	return tile_mask(first, OTHER_ROWS, own, n);
#endif
}

// next_visible_tile returns the start of the first tile from `first` on that is not TILE_NONE, or a value of end or more.
uint next_visible_tile(uint own, uint first, uint end) {
	while (first < end && mask_of(own, OWN_ROWS, first) == TILE_NONE) first += OTHER_ROWS;
	return first;
}
