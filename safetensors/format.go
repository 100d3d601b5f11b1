package safetensors

import "bytes"

// formatBytes is how much of a file recognise needs.
const formatBytes = 512

// format is another format that is mistaken for safetensors.
type format struct {
	name   string // with article; empty: unknown
	remedy string
	index  bool // it may be the index of a sharded checkpoint
}

const (
	saveRemedy     = "scripts/from_pytorch.py of the repository converts it, or load it in PyTorch and save it with safetensors.torch.save_file"
	downloadRemedy = "download the file itself"
	unpackRemedy   = "decompress it first"
)

// formats lists formats by their first bytes.
var formats = []struct {
	magic string
	format
}{
	{"version https://git-lfs", format{name: "a git-lfs pointer", remedy: `fetch the file with "git lfs pull"`}},
	{"\x1f\x8b\x08", format{name: "a gzip file", remedy: unpackRemedy}},
	{"\x28\xb5\x2f\xfd", format{name: "a zstd file", remedy: unpackRemedy}},
	{"\xfd7zXZ\x00", format{name: "an xz file", remedy: unpackRemedy}},
	{"BZh", format{name: "a bzip2 file", remedy: unpackRemedy}},
	{"PK\x03\x04", format{name: "a zip archive", remedy: "unpack it first"}},
	{"\x93NUMPY", format{name: "a NumPy array", remedy: "save it with safetensors.numpy.save_file"}},
	{"\x89HDF\r\n\x1a\n", format{name: "an HDF5 file", remedy: "load it in its framework and save it with the safetensors package"}},
	{"GGUF", format{name: "a GGUF file", remedy: "use the checkpoint that it was made from"}},
}

// recognise returns the format of a file that is not safetensors, given its first bytes.
func recognise(head []byte) format {
	if len(head) > lengthSize && head[lengthSize] == '{' && head[0] != '{' {
		return format{} // a damaged safetensors file; its length may look like another format
	}
	if bytes.HasPrefix(head, []byte("PK\x03\x04")) && bytes.Contains(head, []byte("/data.pkl")) { // since PyTorch 1.6
		return format{name: "a PyTorch pickle (.pt, .pth or .bin, in a zip archive)", remedy: saveRemedy}
	}
	if len(head) >= 2 && head[0] == 0x80 && head[1] >= 2 && head[1] <= 5 { // the PROTO opcode and its version
		if bytes.Contains(head, []byte("\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19")) { // the magic number of torch.save
			return format{name: "a PyTorch pickle (.pt, .pth or .bin, of a version before 1.6)", remedy: saveRemedy}
		}
		return format{name: "a Python pickle", remedy: saveRemedy}
	}
	for _, f := range formats {
		if bytes.HasPrefix(head, []byte(f.magic)) {
			return f.format
		}
	}
	text := bytes.TrimLeft(bytes.TrimPrefix(head, []byte("\xef\xbb\xbf")), " \t\r\n") // after a byte order mark
	switch lower := bytes.ToLower(text); {
	case bytes.HasPrefix(lower, []byte("<!doctype html")), bytes.HasPrefix(lower, []byte("<html")):
		return format{name: "an HTML page", remedy: downloadRemedy}
	case bytes.HasPrefix(lower, []byte("<?xml")):
		return format{name: "an XML document", remedy: downloadRemedy}
	case !bytes.HasPrefix(text, []byte("{")) || !bytes.HasPrefix(bytes.TrimLeft(text[1:], " \t\r\n"), []byte(`"`)):
		return format{}
	case bytes.Contains(text, []byte(`"weight_map"`)):
		return format{name: "the index of a sharded checkpoint", remedy: "open it with Open or OpenFS, which open its shards", index: true}
	}
	return format{name: "a JSON document", remedy: "give the weights that belong to it", index: true}
}
