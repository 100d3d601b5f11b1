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
	// Names are the tiles to measure, values of LinearConfig.Tile: rows x columns, with cooperative matrices x inputs
	// of a loop iteration. -lowreg is for devices with few registers.
	Names   []string
	Default string // the tile that is used where none was measured
	Key     string // under which vk.Device.StoreTuning keeps the fastest
}

// ListLinearTiles lists the tiles that a device can run for a product of one batch item with so many rows. On CPU
// drivers it lists only the default, because their compilers take minutes for large tiles.
func ListLinearTiles(dev *vk.Device, c LinearConfig, rows int) (list LinearTiles, err error) {
	l, err := NewLinear(dev, c)
	if err != nil {
		return list, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	if err := checkPositive("ListLinearTiles", dim{"rows", rows}); err != nil {
		return list, err
	}
	size := l.size(LinearArgs{Batch: 1, Rows: rows, InRows: rows, OutRows: rows})
	standard := l.defaultTile(size)
	for i, t := range l.tiles() {
		if l.allowed(t, size) && (!dev.Caps().CPU || i == standard) {
			list.Names = append(list.Names, t.name())
		}
	}
	list.Default, list.Key = l.tiles()[standard].name(), l.tuningKey(size)
	return list, nil
}

// configuredTile returns the index of the configured tile, -1 if none is configured.
func (l *Linear) configuredTile() (int, error) {
	name := l.config.Tile
	if name == "" {
		return -1, nil
	}
	var names []string
	for i, t := range l.tiles() {
		if t.name() != name {
			names = append(names, t.name())
			continue
		}
		if l.config.Precision != F32 && !t.fits(limitsOf(l.kernels.dev), l.matrix) {
			return 0, fmt.Errorf("pipelines: Linear: %w: Tile is %s, which exceeds the shared memory, the workgroup size or the matrices of the device", vk.ErrUnsupported, name)
		}
		return i, nil
	}
	return 0, fmt.Errorf("pipelines: Linear: Tile is %q, want one of %s", name, strings.Join(names, ", "))
}

// measuredTile returns the index of the tile that was measured to be the fastest on this device, -1 if none was.
func (l *Linear) measuredTile(s linearSize) int {
	name := l.kernels.dev.StoredTuning(l.tuningKey(s))
	return slices.IndexFunc(l.tiles(), func(t linearTile) bool { return name != "" && t.name() == name && l.allowed(t, s) })
}

// tuningKey identifies the products that a measurement is valid for: their sizes, with rows rounded up to a power of
// two, and the SPIR-V.
func (l *Linear) tuningKey(s linearSize) string {
	c, product := l.config, "linear"
	if c.TransposedW {
		product = "linear transposed"
	}
	return fmt.Sprintf("%s %s in=%d out=%d slots=2^%d x16=%t dense=%t %08x",
		product, c.Precision.String(), c.In, c.Out, bits.Len64(s.rows-1), c.X16, s.denseIn, l.spirvHash())
}

// hashSPIRV is a hash of the SPIR-V of all tiles.
func (l *Linear) hashSPIRV() uint32 {
	hash := fnv.New32a()
	for _, variant := range l.variants() {
		if code, err := shaders.SPV(variant); err == nil { // without it, compiling the variant is an error
			hash.Write(code)
		}
	}
	return hash.Sum32()
}

// variants returns the SPIR-V variants of the tiles for the device.
func (l *Linear) variants() (variants []string) {
	low := limitsOf(l.kernels.dev).lowRegisters()
	for _, t := range l.tiles() {
		variant := t.kernel
		if l.config.Precision != F32 && t.lowRegisters() != low {
			continue
		}
		if l.config.Precision != F32 {
			variant += "_" + l.config.Precision.String()
		}
		if !slices.Contains(variants, variant) {
			variants = append(variants, variant)
		}
	}
	return variants
}

// name identifies a tile among those of its precision.
func (t linearTile) name() string {
	if t.inputs == 0 {
		return fmt.Sprintf("%dx%d", t.rows, t.cols)
	}
	if t.lowRegisters() {
		return fmt.Sprintf("%dx%dx%d-lowreg", t.rows, t.cols, t.inputs)
	}
	return fmt.Sprintf("%dx%dx%d", t.rows, t.cols, t.inputs)
}

// allowed reports whether a tile may be selected: the device can run it for rows of this kind.
func (l *Linear) allowed(t linearTile, s linearSize) bool {
	limits := limitsOf(l.kernels.dev)
	if l.config.Precision == F32 {
		return t.fitsFloat(limits)
	}
	return t.suits(limits, l.matrix, s, l.config.X16)
}
