package train

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func testText(n int) []byte {
	text := make([]byte, n)
	for i := range text {
		text[i] = byte(i*i + i/256)
	}
	return text
}

// Positions that the same formula gives in Python, for 1,000,000 bytes, 3 items of 100 bytes, and seed 7.
func TestRandomBatches(t *testing.T) {
	text := testText(1_000_000)
	r, err := NewRandomBatches(bytes.NewReader(text), BatchOptions{Items: 3, Length: 100, Seed: 7})
	require.NoError(t, err)
	var b Batch
	for step, starts := range randomStarts() {
		require.NoError(t, r.Batch(t.Context(), step, &b))
		assert.Equal(t, []int{3, 100, 300, 300}, []int{b.Items, b.Length, len(b.IDs), len(b.Labels)})
		assert.Nil(t, b.Mask)
		for item, start := range starts {
			assert.Equal(t, text[start:start+100], b.IDs[item*100:(item+1)*100], "step %d, item %d", step, item)
			for i, label := range b.Labels[item*100 : (item+1)*100] {
				require.EqualValues(t, text[start+i+1], label)
			}
		}
	}
}

// The shortest data has one position.
func TestRandomBatchesShort(t *testing.T) {
	r, err := NewRandomBatches(strings.NewReader("abcd"), BatchOptions{Items: 2, Length: 2, Seed: math.MaxUint64})
	require.NoError(t, err)
	var b Batch
	require.NoError(t, r.Batch(t.Context(), math.MaxInt64, &b))
	assert.Equal(t, "abab", string(b.IDs))
	assert.Equal(t, []int32{'b', 'c', 'b', 'c'}, b.Labels)
}

func TestBatchesBadInput(t *testing.T) {
	data := strings.NewReader("abc")
	for want, o := range map[string]BatchOptions{
		"Items is 0, want at least 1":                                     {Length: 1},
		"Length is -1, want at least 1":                                   {Items: 1, Length: -1},
		"Items*Length is 65536*65536, want at most 2147483647":            {Items: 1 << 16, Length: 1 << 16},
		"NewRandomBatches: data has 3 bytes, want at least Length + 2, 4": {Items: 1, Length: 2},
	} {
		_, err := NewRandomBatches(data, o)
		assert.ErrorContains(t, err, want)
	}
	for _, overlap := range []int{-1, 2} {
		_, err := NewWindows(data, BatchOptions{Items: 1, Length: 2}, overlap)
		assert.ErrorContains(t, err, fmt.Sprintf("overlap is %d, want 0 to Length - 1, 1", overlap))
	}
	_, err := NewWindows(strings.NewReader("a"), BatchOptions{Items: 1, Length: 2}, 0)
	assert.ErrorContains(t, err, "data has 1 bytes, want at least 2")
	w, err := NewWindows(data, BatchOptions{Items: 1, Length: 2}, 0)
	require.NoError(t, err)
	for _, step := range []int64{-1, 1} {
		assert.ErrorContains(t, w.Batch(t.Context(), step, &Batch{}), fmt.Sprintf("step is %d, want 0 to 0", step))
	}
}

// Every byte but the first is a label once, and its input is the bytes before it.
func TestWindows(t *testing.T) {
	for _, size := range []int{2, 3, 8, 9, 10, 11, 16, 17, 18, 100} {
		for _, overlap := range []int{0, 1, 5, 7} {
			for _, items := range []int{1, 3} {
				testWindows(t, testText(size), BatchOptions{Items: items, Length: 8}, overlap)
			}
		}
	}
}

func testWindows(t *testing.T, text []byte, o BatchOptions, overlap int) {
	t.Helper()
	w, err := NewWindows(bytes.NewReader(text), o, overlap)
	require.NoError(t, err)
	next := 1 // position of the next label
	b := Batch{IDs: bytes.Repeat([]byte{9}, 100)}
	for step := range w.Steps() {
		require.NoError(t, w.Batch(t.Context(), step, &b))
		require.Len(t, b.Mask, o.Items*o.Length)
		labels := 0
		for item := range o.Items {
			for i, label := range b.Labels[item*o.Length : (item+1)*o.Length] {
				at := item*o.Length + i
				if b.Mask[at] == 0 {
					require.Zero(t, b.IDs[at])
					require.EqualValues(t, IgnoreLabel, label)
				}
				if label == IgnoreLabel {
					continue
				}
				labels++
				require.EqualValues(t, text[next], label)
				require.Equal(t, text[next-1-i:next], b.IDs[item*o.Length:at+1])
				require.GreaterOrEqual(t, i, min(overlap, next-1), "bytes before the input of a label")
				next++
			}
		}
		require.Positive(t, labels, "step %d", step)
	}
	require.Equal(t, len(text), next, "size %d, overlap %d", len(text), overlap)
}

// shrunk is data with fewer bytes than its size says.
type shrunk struct{ *bytes.Reader }

func (s shrunk) Size() int64 { return s.Reader.Size() + 1000 }

func TestBatchesReadErrors(t *testing.T) {
	data := shrunk{bytes.NewReader(testText(50))}
	r, err := NewRandomBatches(data, BatchOptions{Items: 2, Length: 40})
	require.NoError(t, err)
	assert.ErrorContains(t, r.Batch(t.Context(), 3, &Batch{}), "step 3: item 0 at byte ")
	w, err := NewWindows(data, BatchOptions{Items: 1, Length: 40}, 0)
	require.NoError(t, err)
	require.NoError(t, w.Batch(t.Context(), 0, &Batch{}))
	assert.ErrorContains(t, w.Batch(t.Context(), 1, &Batch{}), "window 1 at byte 40: 10 of 41 bytes were read")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	assert.ErrorIs(t, r.Batch(ctx, 0, &Batch{}), context.Canceled)
	assert.ErrorIs(t, w.Batch(ctx, 0, &Batch{}), context.Canceled)
}

func writeLines(t *testing.T, lines ...string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "documents.jsonl")
	require.NoError(t, os.WriteFile(name, []byte(strings.Join(lines, "\n")), 0o666))
	return name
}

func TestDocuments(t *testing.T) {
	name := writeLines(t, `{"text": "one", "label": "b"}`, ``, `{"label":"a","id":"x","text":"tw\u00f6 \"quoted\""}`, `  `, `{"text":"","label":"b"}`)
	d, heldOut, err := OpenDocuments(name, DocumentOptions{})
	require.NoError(t, err)
	assert.Zero(t, heldOut.Len())
	assert.Equal(t, []string{"a", "b"}, d.Classes())
	require.Equal(t, 3, d.Len())
	for i, want := range []struct {
		text  string
		label int32
	}{{"one", 1}, {`twö "quoted"`, 0}, {"", 1}} {
		text, label, err := d.Document(i)
		require.NoError(t, err)
		assert.Equal(t, want.text, text)
		assert.Equal(t, want.label, label)
	}
	for _, i := range []int{-1, 3} {
		_, _, err := d.Document(i)
		assert.ErrorContains(t, err, fmt.Sprintf("i is %d, want 0 to 2", i))
	}
	p, err := NewDocumentPass(d, BatchOptions{Items: 2, Length: 5})
	require.NoError(t, err)
	assert.EqualValues(t, 2, p.Steps())
	var b Batch
	require.NoError(t, p.Batch(t.Context(), 0, &b))
	assert.Equal(t, "one\x00\x00tw\u00f6 ", string(b.IDs))
	assert.Equal(t, []byte{1, 1, 1, 0, 0, 1, 1, 1, 1, 1}, b.Mask)
	assert.Equal(t, []int32{1, 0}, b.Labels)
	require.NoError(t, p.Batch(t.Context(), 1, &b))
	assert.Equal(t, make([]byte, 10), b.IDs)
	assert.Equal(t, make([]byte, 10), b.Mask)
	assert.Equal(t, []int32{1, IgnoreLabel}, b.Labels)
	assert.ErrorContains(t, p.Batch(t.Context(), 2, &b), "step is 2, want 0 to 1")
}

// Labels that are numbers, other names of fields, given classes, and the split by key.
func TestDocumentsOptions(t *testing.T) {
	d, _, err := OpenDocuments(writeLines(t, `{"text":"a","label":3}`, `{"text":"b","label":0}`), DocumentOptions{})
	require.NoError(t, err)
	assert.Equal(t, []string{"0", "1", "2", "3"}, d.Classes())
	_, label, err := d.Document(0)
	require.NoError(t, err)
	assert.EqualValues(t, 3, label)

	var lines []string
	for i := range 40 {
		lines = append(lines, fmt.Sprintf(`{"body":"text %d","class":"%s","id":"%d"}`, i, []string{"no", "yes"}[i%2], i/2))
	}
	d, heldOut, err := OpenDocuments(writeLines(t, lines...), DocumentOptions{TextField: "body", LabelField: "class", KeyField: "id", HeldOut: 3, Classes: []string{"yes", "maybe", "no"}})
	require.NoError(t, err)
	assert.Equal(t, 40, d.Len()+heldOut.Len())
	for part, documents := range map[bool]*Documents{false: d, true: heldOut} {
		assert.Equal(t, []string{"yes", "maybe", "no"}, documents.Classes())
		require.Positive(t, documents.Len())
		for i := range documents.Len() {
			text, label, err := documents.Document(i)
			require.NoError(t, err)
			var n int
			_, err = fmt.Sscanf(text, "text %d", &n)
			require.NoError(t, err)
			assert.Equal(t, part, HeldOut(fmt.Sprint(n/2), 3))
			assert.EqualValues(t, []int{2, 0}[n%2], label)
		}
	}
	b := Batch{}
	r, err := NewDocumentBatches(d, BatchOptions{Items: 4, Length: 7, Seed: 5})
	require.NoError(t, err)
	require.NoError(t, r.Batch(t.Context(), 9, &b))
	for item := range 4 {
		text, label, err := d.Document(int(splitMix64(5<<32+9*4+uint64(item)) % uint64(d.Len())))
		require.NoError(t, err)
		assert.Equal(t, text[:min(7, len(text))], strings.TrimRight(string(b.IDs[7*item:7*item+7]), "\x00"))
		assert.Equal(t, label, b.Labels[item])
	}
}

func TestDocumentsErrors(t *testing.T) {
	for want, line := range map[string]string{
		`line 2: want a JSON object: `:                                     `["text"]`,
		`line 2: field "text" is missing, want a string`:                   `{"label":1}`,
		`line 2: field "text" is "null", want a string`:                    `{"text":null,"label":1}`,
		`line 2: field "label" is missing, want a string or a number`:      `{"text":""}`,
		`line 2: field "label" is "1.5", want a string or a whole number`:  `{"text":"","label":1.5}`,
		`line 2: field "label" is "-1", want a string or a whole number`:   `{"text":"","label":-1}`,
		`line 2: field "label" is "null", want a string or a whole number`: `{"text":"","label":null}`,
		`the largest label is 1048576, want less than 1048576`:             `{"text":"","label":1048576}`,
	} {
		_, _, err := OpenDocuments(writeLines(t, `{"text":"","label":0}`, line), DocumentOptions{})
		assert.ErrorContains(t, err, want)
	}
	good := writeLines(t, `{"text":"abc","label":"x"}`)
	for want, o := range map[string]DocumentOptions{
		`label "x" of the line at byte 0 is none of the 1 Classes`: {Classes: []string{"y"}},
		"Classes has a label twice":                                {Classes: []string{"x", "y", "x"}},
		`field "id" is missing, want a string`:                     {KeyField: "id"},
	} {
		_, _, err := OpenDocuments(good, o)
		assert.ErrorContains(t, err, want)
	}
	_, _, err := OpenDocuments(writeLines(t, "", " "), DocumentOptions{})
	assert.ErrorContains(t, err, "there is no document")
	_, _, err = OpenDocuments(good+"x", DocumentOptions{})
	assert.ErrorIs(t, err, os.ErrNotExist)
	d, heldOut, err := OpenDocuments(good, DocumentOptions{})
	require.NoError(t, err)
	_, err = NewDocumentPass(heldOut, BatchOptions{Items: 1, Length: 1})
	assert.ErrorContains(t, err, "there are 0 documents, want at least 1")
	require.NoError(t, os.WriteFile(good, []byte(`{"text":"abcd","label":"x"}`), 0o666))
	_, _, err = d.Document(0)
	assert.ErrorContains(t, err, "documents.jsonl changed: it has 27 bytes")
}

// counted are batches whose first byte is their step. The step stop fails.
type counted struct {
	stop    int64
	started chan int64
}

var errStop = errors.New("stop")

func (c counted) Batch(_ context.Context, step int64, b *Batch) error {
	c.started <- step
	if step == c.stop {
		return errStop
	}
	b.reset(1, 1, 1, false)
	b.IDs[0] = byte(step)
	return nil
}

// The loader has the next batches ready before they are asked for, and a batch stays as it is until the next is asked
// for.
func TestLoader(t *testing.T) {
	source := counted{stop: 20, started: make(chan int64, 100)}
	l := NewLoader(t.Context(), source, 5, 3)
	for step := int64(5); step < 9; step++ { // 3 are ready, one more is prepared
		assert.Equal(t, step, <-source.started)
	}
	seen := map[*Batch]bool{}
	for step := 5; step < 20; step++ {
		b, err := l.Next(t.Context())
		require.NoError(t, err)
		assert.EqualValues(t, step, b.IDs[0])
		seen[b] = true
		time.Sleep(time.Millisecond)
		assert.EqualValues(t, step, b.IDs[0])
	}
	assert.LessOrEqual(t, len(seen), 5, "batches are reused")
	for range 2 {
		_, err := l.Next(t.Context())
		assert.ErrorIs(t, err, errStop)
	}
	assert.ErrorIs(t, l.Close(), errStop)
	assert.ErrorIs(t, l.Close(), errStop)
}

func TestLoaderEnds(t *testing.T) {
	source := counted{stop: -1, started: make(chan int64, 100)}
	l := NewLoader(t.Context(), source, 0, 0)
	done, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := l.Next(done)
	assert.ErrorIs(t, err, context.Canceled)
	_, err = l.Next(t.Context())
	assert.NoError(t, err)
	require.NoError(t, l.Close())
	require.NoError(t, l.Close())
	require.NoError(t, (*Loader)(nil).Close())

	ctx, cancel := context.WithCancel(t.Context())
	l = NewLoader(ctx, source, 0, 1)
	cancel()
	for err = nil; err == nil; { // the batches that are ready are still returned
		_, err = l.Next(t.Context())
	}
	assert.ErrorIs(t, err, context.Canceled)
	require.NoError(t, l.Close())
}

// randomStarts has the positions by step.
func randomStarts() map[int64][]int {
	return map[int64][]int{
		0:          {40918, 906478, 763974},
		1:          {109590, 440314, 532964},
		2:          {705666, 536133, 391577},
		1000:       {341480, 523652, 226719},
		2147483648: {542237, 305815, 236852},
	}
}
