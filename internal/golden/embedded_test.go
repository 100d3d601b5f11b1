package golden

import (
	"archive/zip"
	"bytes"
	"compress/flate"
	"flag"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/colt5-vulkan/colt5/safetensors"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write embedded.zip")

const pytorchDirectory = "../../colt5/testdata/pytorch/cases"

// embeddedCases are small cases of every module, by folder. Together they have masks, token ids, several routes, blocks,
// windows, cosine routing and soft scores.
var embeddedCases = map[string][]string{
	directory: {
		"coor_descent_00", "coor_descent_01", "coor_descent_02", "coor_descent_03", "coor_descent_edge0",
		"router_41", "router_edge1", "topk_10", "topk_11",
	},
	pytorchDirectory: {
		"attention_routes", "autoregressive_routes", "block_masked", "cross_routes", "encoder_ids", "feedforward_soft", "image", "local_mha_causal", "plain_feedforward", "rmsnorm", "router_routes",
		"vit",
	},
}

// embeddedPaths returns the paths of embeddedCases, sorted by name.
func embeddedPaths() []string {
	var paths []string
	for dir, names := range embeddedCases {
		for _, name := range names {
			paths = append(paths, filepath.Join(dir, name+extension))
		}
	}
	slices.SortFunc(paths, func(a, b string) int { return strings.Compare(filepath.Base(a), filepath.Base(b)) })
	return paths
}

const embeddedLimit = 1536 << 10 // bytes

// TestEmbedded requires the embedded cases to be those of the list, with the bits of the committed ones.
func TestEmbedded(t *testing.T) {
	if *update {
		require.NoError(t, os.WriteFile("embedded.zip", archive(t), 0o644))
		t.Skip("embedded.zip is written; build the test again to check it")
	}
	assert.LessOrEqual(t, len(embedded), embeddedLimit)
	fsys, err := Embedded()
	require.NoError(t, err)
	paths, err := fs.Glob(fsys, "*")
	require.NoError(t, err)
	committed := embeddedPaths()
	require.Len(t, paths, len(committed))
	modules := map[string]bool{}
	for i, path := range committed {
		name := filepath.Base(path)
		require.Equal(t, name, paths[i])
		c, err := LoadFS(fsys, paths[i])
		require.NoError(t, err)
		modules[c.Module] = true

		whole, err := safetensors.Open(path)
		require.NoError(t, err)
		defer whole.Close()
		part, err := safetensors.OpenFS(fsys, paths[i])
		require.NoError(t, err)
		defer part.Close()
		assert.Equal(t, whole.Metadata(), part.Metadata(), name)
		assert.ElementsMatch(t, withoutGradients(whole), part.Names(), name)
		for _, tensor := range part.Names() {
			want, _ := whole.Info(tensor)
			got, _ := part.Info(tensor)
			assert.Equal(t, want.DType, got.DType, tensor)
			assert.Equal(t, want.Shape, got.Shape, tensor)
			a, b := make([]byte, want.Size()), make([]byte, got.Size())
			require.NoError(t, whole.ReadInto(tensor, a))
			require.NoError(t, part.ReadInto(tensor, b))
			assert.True(t, bytes.Equal(a, b), "%s of %s", tensor, name)
		}
	}
	all, err := Cases(directory, pytorchDirectory)
	require.NoError(t, err)
	for _, path := range all {
		c, err := Load(path)
		require.NoError(t, err)
		assert.True(t, modules[c.Module], "there is no embedded case of %s: add one to embeddedCases", c.Module)
	}
}

func withoutGradients(f *safetensors.File) []string {
	var names []string
	for _, name := range f.Names() {
		if !strings.HasPrefix(name, "grad.") {
			names = append(names, name)
		}
	}
	return names
}

// archive makes embedded.zip.
func archive(t *testing.T) []byte {
	var out bytes.Buffer
	z := zip.NewWriter(&out)
	z.RegisterCompressor(zip.Deflate, func(w io.Writer) (io.WriteCloser, error) { return flate.NewWriter(w, flate.BestCompression) })
	for _, path := range embeddedPaths() {
		f, err := safetensors.Open(path)
		require.NoError(t, err)
		defer f.Close()
		var list []safetensors.Tensor
		for _, tensor := range withoutGradients(f) {
			info, _ := f.Info(tensor)
			data := make([]byte, info.Size())
			require.NoError(t, f.ReadInto(tensor, data))
			list = append(list, safetensors.Tensor{Name: tensor, DType: info.DType, Shape: info.Shape, Data: safetensors.Bytes(data)})
		}
		w, err := z.Create(filepath.Base(path))
		require.NoError(t, err)
		require.NoError(t, safetensors.WriteTo(w, f.Metadata(), list))
	}
	require.NoError(t, z.Close())
	return out.Bytes()
}
