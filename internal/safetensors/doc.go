// Package safetensors reads and writes the safetensors format: named tensors behind a JSON header.
//
//	f, err := safetensors.Open("model.safetensors")
//	if err != nil {
//		return err
//	}
//	defer f.Close()
//	for _, name := range f.Names() {
//		info, _ := f.Info(name)
//		fmt.Println(name, info.DType, info.Shape)
//	}
//	weight, err := f.ReadFloat32("to_q.weight")
//
// A file is 8 bytes of header length (little-endian), the header, and the data. The header maps each name to
// {"dtype", "shape", "data_offsets"}, and "__metadata__" to a map of strings; the offsets count from the start of the
// data. Elements are little-endian, rows first.
//
// Reading holds the header only; tensors are read one by one, when asked for. Writing streams too, and replaces a file
// whole or not at all.
//
// Files are checked when opened. Beyond what the reference implementation refuses, these are errors: a header that does
// not begin with "{", a key that occurs twice, a field of a tensor that the format does not know, more than 64
// dimensions, and elements smaller than a byte (F4, F6_E2M3, F6_E3M2). An unknown dtype is an error on opening, because the
// length of such a tensor cannot be checked. The values themselves are not looked at: NaN and infinities are data.
//
// The Go libraries for this format (nlpodyssey/safetensors, maruel/safetensors) work on the whole file in memory or
// mapped, let the last of two equal names win and do not write atomically; hence this package.
//
// Format: https://github.com/huggingface/safetensors#format
package safetensors
