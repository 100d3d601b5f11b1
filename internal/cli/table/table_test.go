package table

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// writeAll writes a table with every kind of value.
func writeAll(format string) (stdout, stderr string, err error) {
	var out, remarks bytes.Buffer
	x := New(&out, &remarks, format, Text("name", "name", 6), Number("ms", "GPU ms", 0), Number("bytes", "memory", 0), Number("share", "share", 0),
		Number("n", "n", 0), Number("yes", "yes", 0), Hidden("device"))
	x.Remark("before")
	x.Row("a|b", Millis(0.0625), Size(1536), Share(0.5), 3, true, "D")
	x.Row("c,\"d\"\n", nil, Absent{}, Share(math.Inf(1)), nil, false, "E")
	err = x.Close()
	x.Remark("after %d", 1)
	return out.String(), remarks.String(), err
}

func TestFormats(t *testing.T) {
	for _, test := range []struct{ format, out, remarks string }{
		{"md", "before\n\n" +
			"| name   | GPU ms | memory | share |  n | yes |\n" +
			"| :----- | -----: | -----: | ----: | -: | --: |\n" +
			"| a\\|b   | 0.06250 | 1.50 KiB |  50 % |  3 | yes |\n" +
			"| c,\"d\"  |        | absent | +Inf % |    |  no |\n" +
			"\nafter 1\n", ""},
		{"csv", "name,ms,bytes,share,n,yes,device\na|b,0.0625,1536,0.5,3,true,D\n\"c,\"\"d\"\"\n\",,,+Inf,,false,E\n", "before\nafter 1\n"},
		{"json", "[\n" +
			"  {\"name\": \"a|b\", \"ms\": 0.0625, \"bytes\": 1536, \"share\": 0.5, \"n\": 3, \"yes\": true, \"device\": \"D\"},\n" +
			"  {\"name\": \"c,\\\"d\\\"\\n\", \"ms\": null, \"bytes\": null, \"share\": null, \"n\": null, \"yes\": false, \"device\": \"E\"}\n]\n", "before\nafter 1\n"},
		{"jsonl", "{\"name\": \"a|b\", \"ms\": 0.0625, \"bytes\": 1536, \"share\": 0.5, \"n\": 3, \"yes\": true, \"device\": \"D\"}\n" +
			"{\"name\": \"c,\\\"d\\\"\\n\", \"ms\": null, \"bytes\": null, \"share\": null, \"n\": null, \"yes\": false, \"device\": \"E\"}\n", "before\nafter 1\n"},
	} {
		t.Run(test.format, func(t *testing.T) {
			out, remarks, err := writeAll(test.format)
			require.NoError(t, err)
			assert.Equal(t, test.out, out)
			assert.Equal(t, test.remarks, remarks)
		})
	}
}

// full is a disk without free space.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space") }

func TestTableErrors(t *testing.T) {
	for _, format := range []string{"md", "csv", "json", "jsonl"} {
		x := New(full{}, full{}, format, Number("a", "a", 0))
		x.Row(1)
		assert.ErrorContains(t, x.Close(), "no space", format)
	}
	var out bytes.Buffer
	x := New(&out, &out, "md", Number("a", "a", 0))
	x.Row(1, 2)
	assert.ErrorContains(t, x.Close(), "2 values in a table of 1 columns")
}

func TestEmptyTable(t *testing.T) {
	for format, want := range map[string]string{"md": "| a  |\n| :- |\n", "csv": "a\n", "json": "[\n]\n", "jsonl": ""} {
		var out bytes.Buffer
		x := New(&out, &out, format, Text("a", "a", 0))
		require.NoError(t, x.Close())
		assert.Equal(t, want, out.String())
	}
}

func TestNumberFormats(t *testing.T) {
	for x, want := range map[float64]string{
		0: "0", 1: "1.000", 0.01234567: "0.01235", 0.00123456: "0.001235", 1.5e-7: "1.5e-07", 12.3456: "12.35", 123456: "123,456", 1e7: "10,000,000", -2.5: "-2.500", -1234.5: "-1,234",
		1.29e6: "1,290,000", 1e15: "1e+15",
	} {
		assert.Equal(t, want, Significant(x))
	}
	for x, want := range map[Size]string{0: "0 B", 1023: "1023 B", 1024: "1 KiB", 1536: "1.50 KiB", 5 << 30: "5 GiB", 1<<64 - 1: "16 EiB"} {
		assert.Equal(t, want, x.String())
	}
	assert.Equal(t, "1.50 GiB", Markdown(MiB(1536)))
	assert.Equal(t, "1536", plain(MiB(1536)))
	for x, want := range map[Share]string{0: "0 %", 0.004: "0.4 %", 0.0994: "9.9 %", 0.1: "10 %", 1.234: "123 %"} {
		assert.Equal(t, want, Markdown(x))
	}
	for x, want := range map[string]string{"1": "1", "999": "999", "1000": "1,000", "1234567.125": "1,234,567.125", "-1000": "-1,000", "-100": "-100", "1e+15": "1e+15"} {
		assert.Equal(t, want, Thousands(x))
	}
	for ms, want := range map[float64]string{0: "0 ns", 1.29e-6: "1.290 ns", 0.00129: "1.290 µs", 1.29: "1.290 ms", 1290: "1.290 s", 1.29e6: "1,290 s"} {
		assert.Equal(t, want, Time(ms))
	}
}

func TestUntrusted(t *testing.T) {
	text := Untrusted("a|b\n\x1b[1m<i>&*_`~$\\\u202e\u200d\x00 é")
	assert.Equal(t, `a\|b\\n\\x1b\[1m&lt;i&gt;&amp;\*\_`+"\\`"+`\~\$\\\\\\u202e`+"\u200d"+`\\x00 é`, Markdown(text))
	assert.Equal(t, `a|b\n\x1b[1m<i>&*_`+"`"+`~$\\\u202e`+"\u200d"+`\x00 é`, plain(text))
	var out bytes.Buffer
	x := New(&out, &out, "jsonl", Text("a", "a", 0))
	x.Row(text)
	require.NoError(t, x.Close())
	var row struct{ A string }
	require.NoError(t, json.Unmarshal(out.Bytes(), &row))
	assert.Equal(t, string(text), row.A, "JSON has the text as it is")
}
