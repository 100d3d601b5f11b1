package safetensors

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"unicode"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestErrorLength checks that long strings of a file are truncated in error messages.
func TestErrorLength(t *testing.T) {
	long := strings.Repeat("9", 1<<20)
	for name, header := range map[string]string{
		"name":     `{"` + long + `":1}`,
		"dtype":    "{" + entry(`"a"`, `"`+long+`"`, "[1]", "[0,4]") + "}",
		"field":    `{"a":{"` + long + `":1}}`,
		"number":   "{" + entry(`"a"`, `"F32"`, "["+long+"]", "[0,4]") + "}",
		"metadata": `{"__metadata__":{"` + long + `":` + long + `}}`,
	} {
		t.Run(name, func(t *testing.T) {
			_, err := read(raw(header, "1234"))
			require.Error(t, err)
			assert.Less(t, len(err.Error()), 1000)
		})
	}
}

// sparse simulates a huge file: a header followed by zeros.
type sparse struct {
	head []byte
	size int64
}

func (s sparse) ReadAt(b []byte, at int64) (int, error) {
	if at+int64(len(b)) > s.size {
		return 0, errors.New("read beyond the end")
	}
	clear(b)
	if at < int64(len(s.head)) {
		copy(b, s.head[at:])
	}
	return len(b), nil
}

// TestMemory checks that opening a file of a terabyte, or one with a false header length, allocates less than 1 MiB.
func TestMemory(t *testing.T) {
	const tera = 1 << 40
	head := raw("{"+entry(`"a"`, `"F32"`, "[262144,1048576]", "[0,1099511627776]")+","+
		entry(`"b"`, `"U8"`, "[2]", "[1099511627776,1099511627778]")+"}", "")
	big := sparse{head, int64(len(head)) + tera + 2}
	wrongLength := binary.LittleEndian.AppendUint64(nil, maxHeader)
	deep := raw("{"+strings.Repeat(`"a":{`, 1<<10), "")

	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f, err := NewReader(big, big.size)
	require.NoError(t, err)
	got, err := f.ReadUint8("b")
	require.NoError(t, err)
	assert.Equal(t, []uint8{0, 0}, got)
	r, err := f.Reader("a")
	require.NoError(t, err)
	n, err := r.ReadAt(make([]byte, 16), tera-16)
	require.NoError(t, err)
	assert.Equal(t, 16, n)
	_, err = read(wrongLength)
	require.Error(t, err)
	_, err = read(deep)
	require.Error(t, err)
	runtime.ReadMemStats(&after)
	assert.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(1<<20))
}

// TestErrorsAreShortAndPrintable: text of a file reaches an error message escaped and shortened.
func TestErrorsAreShortAndPrintable(t *testing.T) {
	hostile := []string{
		"\x1b[31mred", "\x1b]8;;http://example.com\x1b\\link\x1b]8;;\x1b\\", "\x00", "a\nsafetensors: everything is fine", "\u202ereversed",
		strings.Repeat("long", 1<<18), strings.Repeat("\x1b", 1<<16), strings.Repeat("\U0010ffff", 1<<16),
	}
	for _, text := range hostile {
		b, err := json.Marshal(text)
		require.NoError(t, err)
		quoted := string(b)
		f32 := func(shape, offsets string) string { return "{" + entry(quoted, `"F32"`, shape, offsets) + "}" }
		wide := "[1" + strings.Repeat(",1", 63) + "]"
		good, err := read(raw(f32("[1]", "[0,4]"), "1234"))
		require.NoError(t, err)
		_, missing := good.ReadFloat32(text + "?")
		_, wrongType := good.ReadInt32(text)
		var all []error
		for _, header := range []string{
			"{" + quoted + ":1}", "{" + quoted + ":{}," + quoted + ":{}}", f32("["+quoted+"]", "[0,4]"), f32("[2]", "[0,4]"), f32(wide, "[0,8]"),
			f32("[4611686018427387904,1"+strings.Repeat(",1", 62)+"]", "[0,4]"), "{" + entry(`"a"`, quoted, "[1]", "[0,4]") + "}",
			`{"a":{` + quoted + `:0,` + quoted + `:0}}`, `{"__metadata__":{` + quoted + `:1}}`, `{"__metadata__":{` + quoted + `:"",` + quoted + `:""}}`,
			`{"__metadata__":` + quoted + `}`, `{"a":` + quoted + `}`, f32("["+strings.Repeat("9", 1<<16)+"]", "[0,4]"), quoted,
		} {
			_, err := read(raw(header, "1234"))
			all = append(all, err)
			_, err = parseIndex([]byte(strings.Replace(header, "__metadata__", "weight_map", 1)))
			all = append(all, err)
		}
		for _, err := range append(all, missing, wrongType, good.ReadInto(text, nil)) {
			require.Error(t, err)
			assert.LessOrEqual(t, len(err.Error()), 500, "%q", err)
			assert.False(t, strings.ContainsFunc(err.Error(), func(r rune) bool { return !unicode.IsPrint(r) }), "%q", err)
		}
	}
}

// TestHeaderCost bounds what the largest header costs, and that of a larger one, which is refused unread.
func TestHeaderCost(t *testing.T) {
	allocated := func(f func()) uint64 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		f()
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc
	}
	large := sparse{binary.LittleEndian.AppendUint64(nil, 87<<20), 100 << 20}
	assert.Less(t, allocated(func() {
		_, err := NewReader(large, large.size)
		assert.EqualError(t, err, "safetensors: header length is 91226112, want at most 16777216; the file may have another format")
	}), uint64(1<<20))
	if testing.Short() {
		t.Skip("takes 1 s")
	}
	var b strings.Builder
	for b.Len() < maxHeader-100 {
		fmt.Fprintf(&b, `,"%x":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}`, b.Len())
	}
	file := raw("{"+b.String()[1:]+"}", "")
	assert.Less(t, allocated(func() {
		f, err := read(file)
		require.NoError(t, err)
		assert.Greater(t, len(f.Names()), 280_000)
	}), uint64(256<<20))
}
