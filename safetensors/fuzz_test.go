package safetensors

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// FuzzOpen checks that no input makes the reader panic. The tensors of an accepted file must cover its data and stay
// the same when written and read again.
func FuzzOpen(f *testing.F) {
	f.Add([]byte{})
	f.Add(raw("{}", ""))
	f.Add(raw("{} ", "x"))
	f.Add(raw(`{"__metadata__":{"k":"\ud83d\ude00"},`+entry(`"a"`, `"F32"`, "[1]", "[2,6]")+","+entry(`"b\u00e9"`, `"BF16"`, "[]", "[0,2]")+"}", "123456"))
	f.Add(raw("{"+entry(`"e"`, `"I32"`, "[0,7]", "[4,4]")+","+entry(`"a"`, `"I32"`, "[1,1]", "[0,4]")+","+entry(`"h"`, `"F16"`, "[2]", "[4,8]")+"}", "12345678"))
	f.Add(raw("{"+entry(`"a"`, `"F64"`, "[4611686018427387905]", "[0,8]")+"}", "12345678"))
	f.Fuzz(func(t *testing.T, file []byte) {
		x, err := read(file)
		if err != nil {
			return
		}
		content, sum := contents(t, x)
		require.EqualValues(t, len(file), x.data+sum)
		for _, name := range x.Names() {
			info, _ := x.Info(name)
			_, err := x.ReadFloat32(name)
			assert.Equal(t, info.DType == F32 || info.DType == F16 || info.DType == BF16, err == nil)
			_, err = x.ReadInt32(name)
			assert.Equal(t, info.DType == I32, err == nil)
			_, err = x.ReadUint8(name)
			assert.Equal(t, info.DType == U8 || info.DType == Bool, err == nil)
		}

		head, sorted, err := layout(x.Metadata(), copied(t, x))
		require.NoError(t, err)
		var b bytes.Buffer
		require.NoError(t, encode(&b, head, sorted))
		again, err := read(b.Bytes())
		require.NoError(t, err)
		copy, _ := contents(t, again)
		assert.Equal(t, content, copy)
		assert.Equal(t, len(x.Metadata()), len(again.Metadata()))
		for key, value := range x.Metadata() {
			assert.Equal(t, value, again.Metadata()[key])
		}
	})
}

// content is a tensor in comparable form.
type content struct {
	dtype DType
	shape []int64
	data  string
}

// contents returns all tensors of a file and the sum of their sizes in bytes.
func contents(t *testing.T, f *File) (map[string]content, int64) {
	all, sum := map[string]content{}, int64(0)
	for _, name := range f.Names() {
		info, ok := f.Info(name)
		require.True(t, ok)
		data := make([]byte, info.Size())
		require.NoError(t, f.ReadInto(name, data))
		all[name] = content{info.DType, append([]int64{}, info.Shape...), string(data)}
		sum += info.Size()
	}
	require.Len(t, all, len(f.Names()))
	return all, sum
}
