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
// # Format
//
// A file is 8 bytes of header length (little-endian), the header, and the data. The header maps each name to
// {"dtype", "shape", "data_offsets"}, and "__metadata__" to a map of strings. Offsets are relative to the start of the
// data. Elements are little-endian, in row-major order. See https://github.com/huggingface/safetensors#format
//
// A sharded checkpoint is several such files and an index, model.safetensors.index.json, whose "weight_map" maps each
// name to a file in the directory of the index.
//
// # Reading
//
// [Open] opens a file or the index of a sharded checkpoint, [OpenFS] the same in an [io/fs.FS], and [NewReader] one file
// through an [io.ReaderAt]. They read the headers only. The data of a tensor is read on demand, and nothing but the
// result and 64 KiB is kept in memory.
//
// Headers are validated. Rejected is what the reference implementation rejects, and also: a header that does not begin
// with "{", duplicate keys, more than 64 dimensions, and element types smaller than a byte (F4, F6_E2M3, F6_E3M2). An
// unknown dtype is an error, because the size of such a tensor cannot be checked. Unknown fields of a tensor are ignored.
// The values of tensors are not checked: NaN and infinities are valid data.
//
// Limits bound the cost of hostile files: 16 MiB for a header, which is about 100,000 tensors (the reference
// implementation reads up to 100 MB); for a sharded checkpoint 32 MiB for the index, 1,000 files, and 64 MiB for all
// headers. The index must list exactly the tensors of its files, and the files must not lie outside its directory.
//
// Error messages name the file and the tensor. Text of the file is escaped and shortened in them. A file of another
// format, such as a PyTorch pickle, an HTML page or a git-lfs pointer, is named, with what to do about it.
//
// # Loading
//
// [Source] is what package colt5 loads weights from; a [File] is one. [LoadOptions] adapts names.
//
// # Writing
//
// [Write] streams the data to a file and replaces an existing one atomically. [WriteTo] writes to an [io.Writer].
//
// The Go libraries for this format (nlpodyssey/safetensors, maruel/safetensors) keep the whole file in memory or map it,
// accept duplicate names and do not write atomically. That is why this package exists.
package safetensors
