package pipelines

import (
	"errors"
	"fmt"
	"hash/fnv"
	"math/bits"
	"slices"
	"strings"

	"github.com/colt5-vulkan/colt5/shaders"
	"github.com/colt5-vulkan/colt5/vk"
)

// LinearTiles describes the tile sizes of a product on a device. All of them give the same bits.
type LinearTiles struct {
	Names   []string // the tiles that are worth measuring, values of LinearConfig.Tile: rows x columns, with cooperative matrices x inputs per step
	Default string   // the one that is used where none was measured
	Key     string   // under which vk.Device.Tune keeps the fastest
}

// ListLinearTiles lists the tiles that a device can run for a product of one batch item of so many rows. On CPU drivers these are the default alone,
// because their compilers take minutes for large tiles.
func ListLinearTiles(dev *vk.Device, c LinearConfig, rows int) (t LinearTiles, err error) {
	l, err := NewLinear(dev, c)
	if err != nil {
		return t, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	if err := checkPositive("ListLinearTiles", dim{"rows", rows}); err != nil {
		return t, err
	}
	size := l.size(LinearArgs{Batch: 1, Rows: rows, InRows: rows, OutRows: rows})
	standard := l.defaultTile(size)
	for i, v := range l.tiles() {
		if l.allowed(v, size) && (!dev.Caps().CPU || i == standard) {
			t.Names = append(t.Names, v.name())
		}
	}
	t.Default, t.Key = l.tiles()[standard].name(), l.tuningKey(size)
	return t, nil
}

// tileIndex finds a configured tile, -1 for none.
func (l *Linear) tileIndex(name string) (int, error) {
	if name == "" {
		return -1, nil
	}
	var names []string
	for i, v := range l.tiles() {
		if v.name() != name {
			names = append(names, v.name())
			continue
		}
		if l.config.Precision != F32 && !v.fits(l.kernels.dev.Caps(), l.matrix) {
			return 0, fmt.Errorf("pipelines: Linear: %w: Tile is %s, which needs more shared memory or larger workgroups", vk.ErrUnsupported, name)
		}
		return i, nil
	}
	return 0, fmt.Errorf("pipelines: Linear: Tile is %q, want one of %s", name, strings.Join(names, ", "))
}

// measuredTile is the tile that was measured to be the fastest on this device, -1 if none was.
func (l *Linear) measuredTile(s linearSize) int {
	name := l.kernels.dev.Tuned(l.tuningKey(s))
	return slices.IndexFunc(l.tiles(), func(v linearVariant) bool { return name != "" && v.name() == name && l.allowed(v, s) })
}

// tuningKey identifies what a measurement of tiles holds for: sizes, slots in powers of two, and the SPIR-V.
func (l *Linear) tuningKey(s linearSize) string {
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

// name identifies a tile among those of its precision.
func (v linearVariant) name() string {
	if v.step == 0 {
		return fmt.Sprintf("%dx%d", v.rows, v.cols)
	}
	return fmt.Sprintf("%dx%dx%d", v.rows, v.cols, v.step)
}

// allowed reports whether tile v may be selected: the device can run it for rows of this kind.
func (l *Linear) allowed(v linearVariant, s linearSize) bool {
	caps := l.kernels.dev.Caps()
	if l.config.Precision == F32 {
		return (v.kernel == "linear_cpu") == caps.CPU
	}
	return v.fits(caps, l.matrix) && (!v.dense || s.dense && l.config.X16)
}
