package safetensors

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"unicode"

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
	f.Add(raw(`{"__metadata__":null,"a":{"x":[{"y":"]}\""},-1.5e3,null],"dtype":"F64","shape":[1],"data_offsets":[0,8],"":{}}}`, "12345678"))
	f.Fuzz(func(t *testing.T, file []byte) {
		x, err := read(file)
		if err != nil {
			assert.Less(t, len(err.Error()), 700)
			assert.False(t, strings.ContainsFunc(err.Error(), func(r rune) bool { return !unicode.IsPrint(r) }), "%q", err)
			return
		}
		checkParsed(t, file, x)
		content, sum := contents(t, x)
		require.EqualValues(t, len(file), x.shards[0].data+sum)
		for _, name := range x.Names() {
			info, _ := x.Info(name)
			_, err := x.ReadFloat32(name)
			overflow := info.DType == F64 && err != nil && strings.Contains(err.Error(), "beyond the range of float32")
			assert.Equal(t, info.DType == F64 || info.DType == F32 || info.DType == F16 || info.DType == BF16, err == nil || overflow)
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

// checkParsed compares a file with what encoding/json reads from its header.
func checkParsed(t *testing.T, file []byte, x *File) {
	var entries map[string]json.RawMessage
	require.NoError(t, json.Unmarshal(file[lengthSize:x.shards[0].data], &entries))
	if text, ok := entries[metadataKey]; ok {
		var metadata map[string]string
		require.NoError(t, json.Unmarshal(text, &metadata))
		assert.Equal(t, metadata, x.Metadata())
		delete(entries, metadataKey)
	}
	assert.Len(t, x.Names(), len(entries))
	for name, text := range entries {
		var fields map[string]json.RawMessage // not a struct, whose keys would match in any case
		require.NoError(t, json.Unmarshal(text, &fields))
		var dtype DType
		var shape, offsets []int64
		require.NoError(t, json.Unmarshal(fields["dtype"], &dtype))
		require.NoError(t, json.Unmarshal(fields["shape"], &shape))
		require.NoError(t, json.Unmarshal(fields["data_offsets"], &offsets))
		info, ok := x.Info(name)
		require.True(t, ok)
		assert.Equal(t, Info{Name: name, DType: dtype, Shape: shape, begin: offsets[0], end: offsets[1]}, info)
	}
}

// FuzzIndex checks that no input makes the reader of an index panic, and that an accepted index agrees with
// encoding/json.
func FuzzIndex(f *testing.F) {
	f.Add([]byte(`{"metadata":{"total_size":8},"weight_map":{"a":"x-1.safetensors","b":"x-2.safetensors","c":"x-1.safetensors"}}`))
	f.Add([]byte(`{"weight_map":{"a":"../x"}}`))
	f.Add([]byte(` { "x" : [ ] , "weight_map" : { "\u0061" : "d/x" } } `))
	f.Fuzz(func(t *testing.T, raw []byte) {
		x, err := parseIndex(raw)
		if err != nil {
			assert.Less(t, len(err.Error()), 700)
			return
		}
		var want struct {
			Map map[string]string `json:"weight_map"`
		}
		var fields map[string]json.RawMessage
		require.NoError(t, json.Unmarshal(raw, &fields))
		require.NoError(t, json.Unmarshal(fields["weight_map"], &want.Map))
		got := map[string]string{}
		for name, n := range x.shardOf {
			got[name] = x.shards[n]
			assert.True(t, filepath.IsLocal(x.shards[n]))
		}
		assert.Equal(t, want.Map, got)
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
