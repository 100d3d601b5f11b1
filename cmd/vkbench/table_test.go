package main

import (
	"bytes"
	"context"
	"errors"
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/urfave/cli/v3"
)

// written is a table of every kind of value in a format.
func written(t *testing.T, format string) (stdout, stderr string) {
	t.Helper()
	var out, remarks bytes.Buffer
	a := &app{stdout: &out, stderr: &remarks}
	command := &cli.Command{Flags: []cli.Flag{outputFlag()}, Action: func(_ context.Context, c *cli.Command) error {
		x, err := a.table(c, column{key: "name", title: "name", left: true, width: 6}, column{key: "ms", title: "GPU ms"}, column{key: "bytes", title: "memory"},
			column{key: "share", title: "share"}, column{key: "n", title: "n"}, column{key: "yes", title: "yes"}, data("device"))
		require.NoError(t, err)
		x.remark("before")
		x.row("a|b", millis(0.0625), size(1536), share(0.5), 3, true, "D")
		x.row("c,\"d\"\n", nil, absent{}, share(math.Inf(1)), nil, false, "E")
		err = x.close()
		x.remark("after %d", 1)
		return err
	}}
	require.NoError(t, command.Run(context.Background(), []string{"x", "-o", format}))
	return out.String(), remarks.String()
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
			out, remarks := written(t, test.format)
			assert.Equal(t, test.out, out)
			assert.Equal(t, test.remarks, remarks)
		})
	}
}

// full is a disk without room.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no room") }

func TestTableErrors(t *testing.T) {
	for _, format := range []string{"md", "csv", "json", "jsonl"} {
		x := &table{out: full{}, remarks: full{}, format: format, columns: []column{{key: "a", title: "a"}}, before: func() {}}
		x.row(1)
		assert.ErrorContains(t, x.close(), "no room", format)
	}
	var out bytes.Buffer
	x := &table{out: &out, remarks: &out, format: "md", columns: []column{{key: "a", title: "a"}}, before: func() {}}
	x.row(1, 2)
	assert.ErrorContains(t, x.close(), "2 values in a table of 1 columns")
}

func TestEmptyTable(t *testing.T) {
	for format, want := range map[string]string{"md": "| a  |\n| :- |\n", "csv": "a\n", "json": "[\n]\n", "jsonl": ""} {
		var out bytes.Buffer
		x := &table{out: &out, remarks: &out, format: format, columns: []column{{key: "a", title: "a", left: true}}, before: func() {}}
		require.NoError(t, x.close())
		assert.Equal(t, want, out.String())
	}
}

func TestNumbers(t *testing.T) {
	for x, want := range map[float64]string{
		0: "0", 1: "1.000", 0.01234567: "0.01235", 0.00123456: "0.001235", 1.5e-7: "1.5e-07", 12.3456: "12.35", 123456: "123456", 1e7: "1e+07", -2.5: "-2.500",
	} {
		assert.Equal(t, want, significant(x))
	}
	for x, want := range map[size]string{0: "0 B", 1023: "1023 B", 1024: "1 KiB", 1536: "1.50 KiB", 5 << 30: "5 GiB", 1<<64 - 1: "16 EiB"} {
		assert.Equal(t, want, x.String())
	}
	assert.Equal(t, "1.50 GiB", markdown(mebibytes(1536)))
	assert.Equal(t, "1536", plain(mebibytes(1536)))
	for x, want := range map[share]string{0: "0 %", 0.004: "0.4 %", 0.0994: "9.9 %", 0.1: "10 %", 1.234: "123 %"} {
		assert.Equal(t, want, markdown(x))
	}
}
