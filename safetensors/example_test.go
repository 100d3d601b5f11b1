package safetensors_test

import (
	"bytes"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"testing/fstest"

	"github.com/colt5-vulkan/colt5/safetensors"
)

// Write a file, list its tensors and read one.
func Example() {
	dir, err := os.MkdirTemp("", "safetensors")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "model.safetensors")
	err = safetensors.Write(path, map[string]string{"format": "pt"}, []safetensors.Tensor{
		{Name: "to_q.weight", DType: safetensors.F32, Shape: []int64{2, 3}, Data: safetensors.Float32s([]float32{1, 2, 3, 4, 5, 6})},
		{Name: "ids", DType: safetensors.I32, Shape: []int64{2}, Data: safetensors.Int32s([]int32{7, -1})},
	})
	if err != nil {
		log.Fatal(err)
	}

	f, err := safetensors.Open(path)
	if err != nil {
		log.Fatal(err)
	}
	defer f.Close()
	for _, name := range f.Names() {
		info, _ := f.Info(name)
		fmt.Println(name, info.DType, info.Shape)
	}
	weight, err := f.ReadFloat32("to_q.weight")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(weight)
	// Output:
	// to_q.weight F32 [2 3]
	// ids I32 [2]
	// [1 2 3 4 5 6]
}

// Read a sharded checkpoint from a file system: an embedded one, a zip archive or, as here, one in memory.
func ExampleOpenFS() {
	shard := func(name string, value float32) *fstest.MapFile {
		var b bytes.Buffer
		err := safetensors.WriteTo(&b, nil, []safetensors.Tensor{
			{Name: name, DType: safetensors.F32, Shape: []int64{1}, Data: safetensors.Float32s([]float32{value})},
		})
		if err != nil {
			log.Fatal(err)
		}
		return &fstest.MapFile{Data: b.Bytes()}
	}
	files := fstest.MapFS{
		"model.safetensors.index.json": {Data: []byte(`{"weight_map": {
			"a": "model-00001-of-00002.safetensors",
			"b": "model-00002-of-00002.safetensors"}}`)},
		"model-00001-of-00002.safetensors": shard("a", 0.5),
		"model-00002-of-00002.safetensors": shard("b", 0.25),
	}

	f, err := safetensors.OpenFS(files, "model.safetensors.index.json")
	if err != nil {
		log.Fatal(err)
	}
	defer f.Close()
	for _, name := range f.Names() {
		data, err := f.ReadFloat32(name)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(name, data)
	}
	// Output:
	// a [0.5]
	// b [0.25]
}
