// Package safetensors reads and writes the safetensors format: a JSON header, then the data of named tensors.
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
// {"dtype", "shape", "data_offsets"}, and "__metadata__" to a map of strings. Offsets are relative to the start of the
// data. Elements are little-endian, in row-major order.
//
// Open reads the header only; the data of a tensor is read on demand. Write streams the data and replaces a file
// atomically.
//
// Open validates the file. It rejects what the reference implementation rejects, and also: a header that does not begin
// with "{", duplicate keys, unknown fields of a tensor, more than 64 dimensions, and element types smaller than a byte
// (F4, F6_E2M3, F6_E3M2). An unknown dtype is an error, because the size of such a tensor cannot be checked. Values are
// not checked: NaN and infinities are valid data.
//
// The Go libraries for this format (nlpodyssey/safetensors, maruel/safetensors) keep the whole file in memory or map it,
// accept duplicate names and do not write atomically. That is why this package exists.
//
// Format: https://github.com/huggingface/safetensors#format
package safetensors
