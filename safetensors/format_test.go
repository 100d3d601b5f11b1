package safetensors

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestOtherFormats: a file of another format is named in the error, with what to do about it.
func TestOtherFormats(t *testing.T) {
	filler := strings.Repeat("\x00\x01", 600)
	const pickleRemedy = ", want a safetensors file; scripts/from_pytorch.py of the repository converts it, or load it in PyTorch and save it with safetensors.torch.save_file"
	for _, c := range []struct{ name, file, want string }{
		{"torch.save", "PK\x03\x04\x00\x00\x08\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x0e\x00\x05\x00model/data.pklFB" + filler,
			"it is a PyTorch pickle (.pt, .pth or .bin, in a zip archive)" + pickleRemedy},
		{"torch.save before 1.6", "\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}" + filler,
			"it is a PyTorch pickle (.pt, .pth or .bin, of a version before 1.6)" + pickleRemedy},
		{"pickle", "\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00}" + filler, "it is a Python pickle" + pickleRemedy},
		{"zip archive", "PK\x03\x04\x14\x00\x08\x00" + filler, "it is a zip archive, want a safetensors file; unpack it first"},
		{"gzip", "\x1f\x8b\x08\x08\x00\x00\x00\x00" + filler, "it is a gzip file, want a safetensors file; decompress it first"},
		{"short gzip", "\x1f\x8b\x08", "it is a gzip file, want"},
		{"zstd", "\x28\xb5\x2f\xfd\x24\x00\x01\x00" + filler, "it is a zstd file, want"},
		{"xz", "\xfd7zXZ\x00\x00\x04" + filler, "it is an xz file, want"},
		{"bzip2", "BZh91AY&SY" + filler, "it is a bzip2 file, want"},
		{"git-lfs", "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
			`it is a git-lfs pointer, want a safetensors file; fetch the file with "git lfs pull"`},
		{"HTML", "\n<!DOCTYPE html>\n<html><head><title>404</title>", "it is an HTML page, want a safetensors file; download the file itself"},
		{"HTML with byte order mark", "\xef\xbb\xbf<HTML>\n<body></body>", "it is an HTML page, want"},
		{"XML", `<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>`, "it is an XML document, want"},
		{"NumPy", "\x93NUMPY\x01\x00v\x00{'descr': '<f4'" + filler, "it is a NumPy array, want"},
		{"HDF5", "\x89HDF\r\n\x1a\n\x00" + filler, "it is an HDF5 file, want"},
		{"GGUF", "GGUF\x03\x00\x00\x00" + filler, "it is a GGUF file, want"},
		{"config", `{ "dim": 64, "depth": 6 }`, "it is a JSON document"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := read([]byte(c.file))
			assert.ErrorContains(t, err, c.want)
			path := filepath.Join(t.TempDir(), "model")
			require.NoError(t, os.WriteFile(path, []byte(c.file), 0o600))
			_, err = Open(path)
			assert.ErrorContains(t, err, "safetensors: "+path+": "+c.want)
		})
	}
}

// TestDamagedFile: damage is described, even if the length looks like the beginning of another format.
func TestDamagedFile(t *testing.T) {
	for _, length := range []string{"\x1f\x8b\x08\x00\x00\x00\x00\x00", "BZh\x00\x00\x00\x00\x00", "\x80\x02\x00\x00\x00\x00\x00\x00"} {
		_, err := read([]byte(length + `{"a":{"dtype":"F32"`))
		assert.ErrorContains(t, err, "but the file has only 19 bytes after it")
	}
	_, err := read([]byte("{\x00\x00\x00\x00\x00\x00\x00" + `{"a":{"dtype":"F32"`))
	assert.ErrorContains(t, err, "header length is 123, but the file has only 19 bytes after it")
}
