package train

import "hash/fnv"

// HeldOut reports whether what has a key belongs to the held-out part: whether the FNV-1a hash of the key, 32 bits, is
// a multiple of n. So it is for about one key in n, whatever else there is. With n = 0 nothing is held out.
func HeldOut(key string, n uint32) bool {
	if n == 0 {
		return false
	}
	h := fnv.New32a()
	h.Write([]byte(key))
	return h.Sum32()%n == 0
}

// splitMix64 is the generator of Steele, Lea and Flood (2014), which package documentation calls SplitMix64, as a
// function of its state.
func splitMix64(x uint64) uint64 {
	x += 0x9E3779B97F4A7C15
	x = (x ^ x>>30) * 0xBF58476D1CE4E5B9
	x = (x ^ x>>27) * 0x94D049BB133111EB
	return x ^ x>>31
}

// randomIndex is the choice of item b of step t among n: a function of the seed, the step and the item only.
func randomIndex(seed uint64, step int64, items, b int, n uint64) uint64 {
	return splitMix64(seed<<32+uint64(step)*uint64(items)+uint64(b)) % n
}
