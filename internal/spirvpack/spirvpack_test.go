package spirvpack

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// committed are the modules of the library.
func committed(t testing.TB) map[string][]byte {
	t.Helper()
	files, err := filepath.Glob("../../shaders/src/spv/*.spv")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	modules := map[string][]byte{}
	for _, f := range files {
		code, err := os.ReadFile(f)
		require.NoError(t, err)
		modules[strings.TrimSuffix(filepath.Base(f), ".spv")] = code
	}
	return modules
}

func TestRoundTrip(t *testing.T) {
	modules := committed(t)
	if testing.Short() { // all take 3 s
		maps.DeleteFunc(modules, func(name string, _ []byte) bool {
			return !strings.HasPrefix(name, "select") && !strings.HasPrefix(name, "patch")
		})
	}
	file, err := Pack(modules)
	require.NoError(t, err)
	got, err := Unpack(file)
	require.NoError(t, err)
	assert.Equal(t, modules, got)
	size := 0
	for _, code := range modules {
		size += len(code)
	}
	assert.Less(t, len(file), size/16)
	again, err := Pack(got)
	require.NoError(t, err)
	assert.Equal(t, file, again, "the order of a map does not matter")
	t.Log(len(modules), "modules of", size, "bytes are", len(file))
}

// TestAnyWords has opcodes, lengths and operands that no compiler makes.
func TestAnyWords(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	modules := map[string][]byte{"": make([]byte, 20)}
	for _, name := range []string{"a_f16", "a_bf16", "b"} {
		code := make([]uint32, header)
		for range 500 {
			op, n := uint32(r.IntN(70)), 1+r.IntN(6)
			if r.IntN(50) == 0 {
				op, n = uint32(r.IntN(1<<16)), 1+r.IntN(300)
			}
			code = append(code, uint32(n)<<16|op)
			for range n - 1 {
				code = append(code, r.Uint32()>>r.IntN(32))
			}
		}
		data := make([]byte, 0, 4*len(code))
		for _, w := range code {
			data = binary.LittleEndian.AppendUint32(data, w)
		}
		modules[name] = data
	}
	file, err := Pack(modules)
	require.NoError(t, err)
	got, err := Unpack(file)
	require.NoError(t, err)
	assert.Equal(t, modules, got)
}

// TestSimilar has modules with the same operations on other ids, and a long instruction that differs near its end.
func TestSimilar(t *testing.T) {
	modules := map[string][]byte{}
	for m := range uint32(20) {
		r, gaps := rand.New(rand.NewPCG(1, 2)), rand.New(rand.NewPCG(3, uint64(m)))
		code := []uint32{0x07230203, 0x10600, 0, 5000, 0, 101<<16 | 7, 1} // OpString
		for range 99 {
			code = append(code, r.Uint32())
		}
		code[len(code)-30] += m
		ids := []uint32{2}
		for range 1000 { // OpIAdd
			id := ids[len(ids)-1] + 1 + gaps.Uint32N(2)
			code = append(code, 5<<16|128, 2, id, ids[r.IntN(len(ids))], ids[r.IntN(len(ids))])
			ids = append(ids, id)
		}
		name := string('a' + rune(m))
		for _, w := range code {
			modules[name] = binary.LittleEndian.AppendUint32(modules[name], w)
		}
	}
	file, err := Pack(modules)
	require.NoError(t, err)
	got, err := Unpack(file)
	require.NoError(t, err)
	assert.Equal(t, modules, got)
	delete(modules, "t")
	fewer, err := Pack(modules)
	require.NoError(t, err)
	assert.Less(t, len(file)-len(fewer), 500, "bytes of one more module of 5 KB")
}

func TestPackErrors(t *testing.T) {
	for want, code := range map[string][]byte{
		"module m has 21 bytes, want whole words":    make([]byte, 21),
		"module m has 16 bytes, want whole words":    make([]byte, 16),
		"module m has no instruction at word 5 of 6": make([]byte, 24),
		"module m has no instruction at word 5 of 7": append(make([]byte, 20), 5, 0, 3, 0, 0, 0, 0, 0),
	} {
		_, err := Pack(map[string][]byte{"m": code})
		assert.ErrorContains(t, err, want)
	}
}

// TestDamaged requires an error, and no panic, for any file.
func TestDamaged(t *testing.T) {
	d := newDeflater()
	for _, file := range [][]byte{nil, {1}, d.deflate(nil), d.deflate([]byte{1}), d.deflate([]byte{200, 200, 200, 200, 200, 200, 1})} {
		_, err := Unpack(file)
		assert.ErrorContains(t, err, "spirvpack: ")
	}
	code := append(make([]byte, 20), 17, 0, 2, 0, 1, 0, 0, 0, 19, 0, 2, 0, 2, 0, 0, 0)
	c, err := Pack(map[string][]byte{"m": code})
	require.NoError(t, err)
	plain := inflate(t, c)
	for i := range plain {
		_, err := unpack(plain[:i])
		assert.Error(t, err, "%d bytes", i)
		for bit := range 8 {
			plain[i] ^= 1 << bit
			unpack(plain)
			plain[i] ^= 1 << bit
		}
	}
}

func inflate(t *testing.T, file []byte) []byte {
	data, err := io.ReadAll(flate.NewReader(bytes.NewReader(file)))
	require.NoError(t, err)
	return data
}

func BenchmarkUnpack(b *testing.B) {
	file, err := Pack(committed(b))
	require.NoError(b, err)
	for b.Loop() {
		if _, err := Unpack(file); err != nil {
			b.Fatal(err)
		}
	}
}
