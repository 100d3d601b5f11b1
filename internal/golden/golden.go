// Package golden reads the golden cases in testdata/golden: inputs and weights with the expected outputs, gradients and
// routing, computed in float64 by PyTorch. Their format is in testdata/golden/README.md.
//
//	paths, err := golden.Cases("testdata/golden")
//	for _, path := range paths {
//		c, err := golden.Load(path)
//		...
//		worst := ref.MaxErr(y, c.Outputs["y"].Float64s())
//		err = worst.Within(c.OutputBound("y"))
//	}
//
// Load validates a case completely, because a test with wrongly read data proves nothing. Errors name the file and the
// tensor.
package golden

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/colt5-vulkan/colt5/internal/errtext"
	"github.com/colt5-vulkan/colt5/safetensors"
)

// Case is one golden case: a call of a module with its expected results.
type Case struct {
	Path   string
	Name   string // base name of Path without the extension
	Module string // class name, e.g. CoordinateDescentRouter

	Config json.RawMessage // JSON object of constructor arguments; see DecodeConfig
	Call   json.RawMessage // JSON object of call arguments; see DecodeCall

	Inputs  map[string]Tensor // x, mask (U8), context, ...
	Weights map[string]Tensor // by PyTorch state-dict name
	Outputs map[string]Tensor // y; or values, indices (I32), coor_descent_values, gates
	// Upstream holds the gradients of the loss with respect to Outputs; InputGrads and WeightGrads those with respect
	// to Inputs and Weights. The names are those of the differentiated tensors.
	Upstream, InputGrads, WeightGrads map[string]Tensor

	Routings map[string]Routing // by router name, "" for a case of a router alone; empty if nothing is routed

	// ValidRowsOnly: only the rows of Outputs that Inputs["mask"] marks as valid are to be compared.
	ValidRowsOnly bool

	bound           float64 // of Outputs, in place of the rules of bound.go; 0: none
	scoreBound      float64 // of soft scores and logits; 0: none
	eps             float64 // final eps of the coordinate descents
	straightThrough bool    // soft scores do not reach the outputs
	nestedRouters   bool    // the input of one router depends on the output of another
	use16Bit        bool    // matrix products have 16-bit operands; see SetPrecision
}

// Tensor is a row-major array. Only the slice of its DType is set.
type Tensor struct {
	DType safetensors.DType // F32, I32 or U8
	Shape []int
	F32   []float32
	I32   []int32
	U8    []uint8
}

// Float64s returns the elements of an F32 tensor.
func (t Tensor) Float64s() []float64 {
	list := make([]float64, len(t.F32))
	for i, v := range t.F32 {
		list[i] = float64(v)
	}
	return list
}

// Routing is the golden result of a router. The index of an empty slot (score 0) is arbitrary.
type Routing struct {
	Indices, Scores   Tensor // [B, K] or [B, R, K]
	Logits, ScoresAll Tensor // [rows, n], one row per batch item, block and route; ScoresAll is 0 for masked tokens
}

// Cases returns the files of golden cases. Each path is a file or a directory; a directory stands for its *.safetensors
// files in sorted order. A directory without any is an error.
func Cases(paths ...string) ([]string, error) {
	var list []string
	for _, path := range paths {
		stat, err := os.Stat(path)
		if err != nil {
			return nil, fmt.Errorf("golden: %w", err)
		}
		if !stat.IsDir() {
			list = append(list, path)
			continue
		}
		entries, err := os.ReadDir(path) // sorted
		if err != nil {
			return nil, fmt.Errorf("golden: %w", err)
		}
		before := len(list)
		for _, e := range entries {
			if filepath.Ext(e.Name()) == extension && !e.IsDir() {
				list = append(list, filepath.Join(path, e.Name()))
			}
		}
		if len(list) == before {
			return nil, fmt.Errorf("golden: %s holds no *%s files", path, extension)
		}
	}
	return list, nil
}

const extension = ".safetensors"

// Load reads and checks the case at path.
func Load(path string) (*Case, error) {
	f, err := safetensors.Open(path)
	return load(f, err, path)
}

// LoadFS does the same in a file system.
func LoadFS(fsys fs.FS, path string) (*Case, error) {
	f, err := safetensors.OpenFS(fsys, path)
	return load(f, err, path)
}

func load(f *safetensors.File, err error, path string) (*Case, error) {
	if err != nil {
		return nil, fmt.Errorf("golden: %w", err)
	}
	c := &Case{
		Path: path, Name: strings.TrimSuffix(filepath.Base(path), extension),
		Inputs: map[string]Tensor{}, Weights: map[string]Tensor{}, Outputs: map[string]Tensor{}, Upstream: map[string]Tensor{},
		InputGrads: map[string]Tensor{}, WeightGrads: map[string]Tensor{}, Routings: map[string]Routing{},
	}
	if err := errors.Join(c.read(f), f.Close()); err != nil {
		return nil, fmt.Errorf("golden: %s: %w", path, err)
	}
	return c, nil
}

func (c *Case) read(f *safetensors.File) error {
	if err := c.readMetadata(f.Metadata()); err != nil {
		return err
	}
	for _, name := range f.Names() {
		t, err := readTensor(f, name)
		if err != nil {
			return err
		}
		if err := c.add(name, t); err != nil {
			return err
		}
	}
	return c.check()
}

// DecodeConfig decodes Config into the struct that v points to. A constructor argument without a field in v is an
// error, so that no argument is ignored silently. flash_attn is dropped, because it selects an implementation and does
// not change results.
func (c *Case) DecodeConfig(v any) error { return c.decode("config", c.Config, v) }

// DecodeCall decodes Call as DecodeConfig decodes Config.
func (c *Case) DecodeCall(v any) error { return c.decode("call", c.Call, v) }

func (c *Case) decode(what string, text json.RawMessage, v any) error {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(text, &fields); err != nil {
		return fmt.Errorf("golden: %s: %s: %w", c.Path, what, err)
	}
	delete(fields, "flash_attn")
	kept, err := json.Marshal(fields)
	if err != nil {
		return fmt.Errorf("golden: %s: %s: %w", c.Path, what, err)
	}
	d := json.NewDecoder(bytes.NewReader(kept))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("golden: %s: %s: %w", c.Path, what, err)
	}
	return nil
}

func (c *Case) readMetadata(m map[string]string) error {
	for _, key := range []string{"module", "config", "call"} {
		if m[key] == "" {
			return fmt.Errorf("metadata has no %s, so the file is no golden case; weights alone are none", key)
		}
	}
	for key := range m {
		if !slices.Contains([]string{"module", "config", "call", "bound", "score_bound", "rows"}, key) {
			return fmt.Errorf("metadata has %s, want module, config, call, and optionally bound, score_bound and rows", errtext.Quote(key))
		}
	}
	if rows, ok := m["rows"]; ok {
		if rows != "valid" {
			return fmt.Errorf("metadata rows is %s, want valid", errtext.Quote(rows))
		}
		c.ValidRowsOnly = true
	}
	for key, into := range map[string]*float64{"bound": &c.bound, "score_bound": &c.scoreBound} {
		text, ok := m[key]
		if !ok {
			continue
		}
		var err error
		if *into, err = strconv.ParseFloat(text, 64); err != nil || !(*into > 0 && *into <= 1) {
			return fmt.Errorf("metadata %s is %s, want a number above 0, at most 1", key, errtext.Quote(text))
		}
	}
	c.Module, c.Config, c.Call = m["module"], json.RawMessage(m["config"]), json.RawMessage(m["call"])
	for _, key := range []string{"config", "call"} {
		var object map[string]json.RawMessage
		if err := json.Unmarshal([]byte(m[key]), &object); err != nil || object == nil {
			return fmt.Errorf("metadata %s is %q, want a JSON object", key, m[key])
		}
	}
	return c.readBoundRule()
}

// add stores a tensor in the map that its name selects.
func (c *Case) add(name string, t Tensor) error {
	want := safetensors.F32
	group, rest, _ := strings.Cut(name, ".")
	var into map[string]Tensor
	switch group {
	case "param":
		into = c.Weights
	case "in":
		into = c.Inputs
		switch {
		case strings.HasSuffix(name, "mask"):
			want = safetensors.U8
		case t.I32 != nil && c.Module == "Encoder":
			want = safetensors.I32 // token ids
		}
	case "out":
		into = c.Outputs
		if rest == "indices" {
			want = safetensors.I32
		}
	case "grad":
		of, inner, _ := strings.Cut(rest, ".")
		into, rest = map[string]map[string]Tensor{"in": c.InputGrads, "param": c.WeightGrads, "out": c.Upstream}[of], inner
		if rest == "" && of == "out" {
			rest = "y"
		}
	case "route":
		return c.addRoute(name, rest, t)
	}
	if into == nil || rest == "" {
		return fmt.Errorf("tensor %q: unknown name", name)
	}
	if _, twice := into[rest]; twice {
		return fmt.Errorf("tensor %q is a duplicate under another name", name)
	}
	into[rest] = t
	return expect(name, t, want)
}

func (c *Case) addRoute(name, rest string, t Tensor) error {
	at := strings.LastIndexByte(rest, '.')
	if at < 0 {
		return fmt.Errorf("tensor %q: unknown name", name)
	}
	r := c.Routings[rest[:at]]
	want := safetensors.F32
	switch rest[at+1:] {
	case "indices":
		r.Indices, want = t, safetensors.I32
	case "scores":
		r.Scores = t
	case "logits":
		r.Logits = t
	case "scores_all":
		r.ScoresAll = t
	default:
		return fmt.Errorf("tensor %q: unknown name", name)
	}
	c.Routings[rest[:at]] = r
	return expect(name, t, want)
}

func expect(name string, t Tensor, want safetensors.DType) error {
	if t.DType != want {
		return fmt.Errorf("tensor %q is %s, want %s", name, t.DType, want)
	}
	return nil
}

// check validates the shapes of related tensors.
func (c *Case) check() error {
	if len(c.Inputs) == 0 || len(c.Outputs) == 0 {
		return fmt.Errorf("%d inputs and %d outputs, want at least one each", len(c.Inputs), len(c.Outputs))
	}
	for _, pair := range []struct {
		prefix        string
		grads, values map[string]Tensor
	}{{"grad.in", c.InputGrads, c.Inputs}, {"grad.param", c.WeightGrads, c.Weights}, {"grad.out", c.Upstream, c.Outputs}} {
		for name, g := range pair.grads {
			t, ok := pair.values[name]
			if !ok {
				return fmt.Errorf("tensor %s.%s is the gradient of a missing tensor", pair.prefix, name)
			}
			if !slices.Equal(g.Shape, t.Shape) {
				return fmt.Errorf("tensor %s.%s has shape %v, want %v", pair.prefix, name, g.Shape, t.Shape)
			}
		}
	}
	if mask, ok := c.Inputs["mask"]; c.ValidRowsOnly {
		if ok && !slices.Contains(mask.U8, 1) {
			return fmt.Errorf("rows valid: the mask has no valid token")
		}
		for name, t := range c.Outputs {
			if !ok || len(t.Shape) < len(mask.Shape) || !slices.Equal(t.Shape[:len(mask.Shape)], mask.Shape) {
				return fmt.Errorf("rows valid: the mask %v has no element for each row of out.%s %v", mask.Shape, name, t.Shape)
			}
		}
	}
	for name, r := range c.Routings {
		switch {
		case len(r.Indices.Shape) < 2 || !slices.Equal(r.Indices.Shape, r.Scores.Shape):
			return fmt.Errorf("route %q: indices %v and scores %v, want equal shapes", name, r.Indices.Shape, r.Scores.Shape)
		case len(r.Logits.Shape) != 2 || !slices.Equal(r.Logits.Shape, r.ScoresAll.Shape):
			return fmt.Errorf("route %q: logits %v and scores_all %v, want equal shapes", name, r.Logits.Shape, r.ScoresAll.Shape)
		case slices.ContainsFunc(r.Indices.I32, func(i int32) bool { return i < 0 }):
			return fmt.Errorf("route %q has a negative index", name)
		}
	}
	return nil
}

func readTensor(f *safetensors.File, name string) (Tensor, error) {
	info, _ := f.Info(name)
	t := Tensor{DType: info.DType}
	for _, d := range info.Shape {
		t.Shape = append(t.Shape, int(d))
	}
	var err error
	switch info.DType {
	case safetensors.F32:
		t.F32, err = f.ReadFloat32(name)
		if slices.ContainsFunc(t.F32, func(v float32) bool { return v-v != 0 }) {
			err = fmt.Errorf("tensor %q has a NaN or an infinity", name)
		}
	case safetensors.I32:
		t.I32, err = f.ReadInt32(name)
	case safetensors.U8:
		t.U8, err = f.ReadUint8(name)
		if slices.ContainsFunc(t.U8, func(v uint8) bool { return v > 1 }) {
			err = fmt.Errorf("mask %q has values other than 0 and 1", name)
		}
	default:
		err = fmt.Errorf("tensor %q is %s, want F32, I32 or U8", name, info.DType)
	}
	if info.Size() == 0 {
		err = fmt.Errorf("tensor %q is empty: shape %v", name, info.Shape)
	}
	return t, err
}
