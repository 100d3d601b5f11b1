package pipelines

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/bits"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/colt5-vulkan/colt5/shaders"
	"github.com/colt5-vulkan/colt5/vk"
)

// Tiles of products are chosen by a rule that was measured on one GPU. TuneLinear measures another; what it finds is kept by the device (see
// vk.Device.Tune), and products then take it. All tiles of a precision give the same bits, so that a choice changes nothing but the time.

// purpose is what a tile is chosen for: sizes, slots in powers of two, and the SPIR-V that was measured.
func (l *Linear) purpose(s linearSize) string {
	c := l.config
	hash := fnv.New32a()
	for _, name := range l.variantNames() {
		code, err := shaders.SPV(name)
		if err != nil {
			return ""
		}
		hash.Write(code)
	}
	return fmt.Sprintf("linear %s in=%d out=%d slots=2^%d x16=%t dense=%t %08x",
		c.Precision.String(), c.In, c.Out, bits.Len64(s.slots-1), c.X16, s.dense, hash.Sum32())
}

// variantNames are the SPIR-V files of the tiles.
func (l *Linear) variantNames() (names []string) {
	for _, v := range l.tiles() {
		name := v.kernel
		if l.config.Precision != F32 {
			name += "_" + l.config.Precision.String()
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// name tells a tile apart from others of the precision.
func (v linearVariant) name() string {
	if v.step == 0 {
		return fmt.Sprintf("%dx%d", v.rows, v.cols)
	}
	return fmt.Sprintf("%dx%dx%d", v.rows, v.cols, v.step)
}

// tuned is the tile that was measured to be the fastest, -1 if none was.
func (l *Linear) tuned(s linearSize) int {
	choice := l.kernels.dev.Tuned(l.purpose(s))
	return slices.IndexFunc(l.tiles(), func(v linearVariant) bool { return choice != "" && v.name() == choice && l.allowed(v, s) })
}

// allowed says whether the device can run a tile for rows of this kind.
func (l *Linear) allowed(v linearVariant, s linearSize) bool {
	caps := l.kernels.dev.Caps()
	if l.config.Precision == F32 {
		return (v.kernel == "linear_cpu") == caps.CPU
	}
	return v.fits(caps, l.matrix) && (!v.dense || s.dense && l.config.X16)
}

// LinearTuning is what TuneLinear measured.
type LinearTuning struct {
	Purpose string // for vk.Device.Tune
	Tiles   []TileTime
	Best    int // of Tiles
	Default int // the one of the rule; of Tiles
}

// TileTime is the median GPU time of a tile.
type TileTime struct {
	Tile string
	Time time.Duration
}

// LinearPurpose is what the tile of a product is kept for, as LinearTuning has it: vk.Device.Tune forgets it by that.
func LinearTuningKey(dev *vk.Device, c LinearConfig, rows int) (string, error) {
	l, err := NewLinear(dev, tunable(c))
	if err != nil {
		return "", err
	}
	return l.purpose(tuningSize(rows)), l.Close()
}

// tunable is the part of a config that tiles are chosen by.
func tunable(c LinearConfig) LinearConfig {
	return LinearConfig{In: c.In, Out: c.Out, Precision: c.Precision, X16: c.X16, Y16: c.Y16}
}

// tuningSize is that of rows that follow each other.
func tuningSize(rows int) linearSize {
	return linearSize{slots: uint64(rows), dense: true, straight: true}
}

// TuneLinear times every tile that a device can run for a product of rows that follow each other, as long as it is told for each. It keeps nothing.
func TuneLinear(dev *vk.Device, c LinearConfig, rows int, each time.Duration) (t LinearTuning, err error) {
	c = tunable(c)
	l, err := NewLinear(dev, c)
	if err != nil {
		return t, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	if err := checkPositive("TuneLinear", dim{"rows", rows}); err != nil {
		return t, err
	}
	var buffers []*vk.Buffer
	defer func() {
		for _, b := range buffers {
			err = errors.Join(err, b.Close())
		}
	}()
	memory := func(name string, count, width int, p DType) vk.Range {
		if err != nil {
			return vk.Range{}
		}
		var b *vk.Buffer
		if b, err = dev.NewBuffer(name, uint64(count)*uint64(width)*uint64(p.Size())); err != nil {
			return vk.Range{}
		}
		buffers = append(buffers, b)
		err = noise(dev, b)
		return b.Range()
	}
	a := LinearArgs{
		X: memory("tune x", rows, c.In, c.x()), W: memory("tune w", c.Out, c.Precision.Columns(c.In), c.Precision), Y: memory("tune y", rows, c.Out, c.y()),
		Batch: 1, Rows: rows,
	}
	if err != nil {
		return t, fmt.Errorf("pipelines: TuneLinear: %w", err)
	}
	size := tuningSize(rows)
	t.Purpose, t.Best = l.purpose(size), -1
	rule := l.rule(size)
	for i, v := range l.tiles() {
		if !l.allowed(v, size) || dev.Caps().CPU && i != rule { // CPU drivers compile large tiles for minutes
			continue
		}
		if i == rule {
			t.Default = len(t.Tiles)
		}
		l.tile = func(linearSize) int { return i }
		took, err := timeRecord(dev, each, func(t *vk.CommandList) error { return l.Record(t, a) })
		if err != nil {
			return t, fmt.Errorf("pipelines: TuneLinear: %s: %w", v.name(), err)
		}
		t.Tiles = append(t.Tiles, TileTime{v.name(), took})
		if t.Best < 0 || took < t.Tiles[t.Best].Time {
			t.Best = len(t.Tiles) - 1
		}
	}
	return t, nil
}

// noise fills memory with numbers of both signs below 2 in size, whatever their precision: a product of zeros takes less power than any, and one
// of what happened to lie there may hold NaNs.
func noise(dev *vk.Device, b *vk.Buffer) error {
	const block = 4 << 20
	data := make([]byte, min(b.Size(), block))
	random := rand.NewChaCha8([32]byte{})
	random.Read(data) // never fails
	for i := 1; i < len(data); i += 2 {
		data[i] = data[i]&0xbf | 0x38 // the exponent's highest bits are 0111 in all three
	}
	for at := uint64(0); at < b.Size(); at += block {
		n := min(b.Size()-at, block)
		if err := dev.Upload(context.TODO(), vk.Transfer{Range: b.Range().Slice(at, n), Data: data[:n]}); err != nil {
			return err
		}
	}
	return nil
}

// timeRecord is the median GPU time of a recording, after as long a warm-up.
func timeRecord(dev *vk.Device, each time.Duration, record func(*vk.CommandList) error) (median time.Duration, err error) {
	list, err := dev.NewCommandList(vk.CommandListConfig{Name: "tune"})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, list.Close()) }()
	if err := record(list); err != nil {
		return 0, err
	}
	var times []time.Duration
	for start := time.Now(); len(times) == 0 || time.Since(start) < 2*each; {
		if err := list.Run(context.TODO()); err != nil {
			return 0, err
		}
		took, err := list.Elapsed()
		if err != nil {
			return 0, err
		}
		if time.Since(start) > each || len(times) == 0 {
			times = append(times, took)
		}
	}
	slices.Sort(times)
	return times[len(times)/2], nil
}
