// Package tune measures which kernel variants are the fastest on a device. Package pipelines selects the tiles of
// matrix products by rules that were measured on one GPU; vk.Device.StoreTuning keeps what this package measures on another,
// and products use it from then on. All tiles of a precision give the same bits, so tuning changes nothing but the
// time.
package tune

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

// LinearResult is what Linear measured.
type LinearResult struct {
	Key     string // for vk.Device.StoreTuning
	Tiles   []TileTime
	Best    int // index in Tiles
	Default int // index in Tiles of the tile that is used without a measurement
}

// TileTime is the median GPU time of a tile.
type TileTime struct {
	Tile string
	Time time.Duration
}

// Linear times every tile that the device can run for a product of contiguous rows: it warms each up for a time and
// measures it for as long. It does not keep the result. Of the config it uses In, Out, Precision, X16 and Y16.
func Linear(ctx context.Context, dev *vk.Device, c pipelines.LinearConfig, rows int, each time.Duration) (r LinearResult, err error) {
	c = measured(c)
	tiles, err := pipelines.ListLinearTiles(dev, c, rows)
	if err != nil {
		return r, err
	}
	m := memory{ctx: ctx, dev: dev}
	defer func() { err = errors.Join(err, m.close()) }()
	x, y := pipelines.F32, pipelines.F32
	if c.X16 {
		x = c.Precision
	}
	if c.Y16 {
		y = c.Precision
	}
	a := pipelines.LinearArgs{
		X: m.random("tune x", rows, c.In, x), W: m.random("tune w", c.Out, c.Precision.Columns(c.In), c.Precision), Y: m.random("tune y", rows, c.Out, y),
		Batch: 1, Rows: rows,
	}
	if m.err != nil {
		return r, fmt.Errorf("tune: Linear: %w", m.err)
	}
	r.Key = tiles.Key
	for i, tile := range tiles.Names {
		c.Tile = tile
		took, err := timeLinear(ctx, dev, c, a, each)
		if err != nil {
			return r, fmt.Errorf("tune: Linear: tile %s: %w", tile, err)
		}
		r.Tiles = append(r.Tiles, TileTime{tile, took})
		if tile == tiles.Default {
			r.Default = i
		}
		if took < r.Tiles[r.Best].Time {
			r.Best = i
		}
	}
	return r, nil
}

// LinearKey returns the key of a product's measurement, as in LinearResult: with it, vk.Device.StoreTuning forgets the
// measurement.
func LinearKey(dev *vk.Device, c pipelines.LinearConfig, rows int) (string, error) {
	tiles, err := pipelines.ListLinearTiles(dev, measured(c), rows)
	return tiles.Key, err
}

// measured is the part of a config that tiles are selected by.
func measured(c pipelines.LinearConfig) pipelines.LinearConfig {
	return pipelines.LinearConfig{In: c.In, Out: c.Out, Precision: c.Precision, X16: c.X16, Y16: c.Y16}
}

// timeLinear is the median GPU time of a product.
func timeLinear(ctx context.Context, dev *vk.Device, c pipelines.LinearConfig, a pipelines.LinearArgs, each time.Duration) (median time.Duration, err error) {
	l, err := pipelines.NewLinear(dev, c)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	list, err := dev.NewCommandList(vk.CommandListConfig{Name: "tune"})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, list.Close()) }() // before l, whose kernels it uses
	if err := l.Record(list, a); err != nil {
		return 0, err
	}
	return medianTime(each, func() (time.Duration, error) {
		if err := list.Run(ctx); err != nil {
			return 0, err
		}
		return list.Elapsed()
	})
}

// medianTime runs a function for a time that does not count, at least once, and then for as long, at least minRuns times.
// It returns the median of the times that the latter runs took. The first run never counts: it may include a compilation
// or a rise of the clocks.
func medianTime(each time.Duration, run func() (time.Duration, error)) (time.Duration, error) {
	const minRuns = 3
	for start, first := time.Now(), true; first || time.Since(start) < each; first = false {
		if _, err := run(); err != nil {
			return 0, err
		}
	}
	var times []time.Duration
	for start := time.Now(); len(times) < minRuns || time.Since(start) < each; {
		took, err := run()
		if err != nil {
			return 0, err
		}
		times = append(times, took)
	}
	slices.Sort(times)
	return times[len(times)/2], nil
}

// memory allocates buffers until an allocation fails.
type memory struct {
	ctx     context.Context
	dev     *vk.Device
	buffers []*vk.Buffer
	err     error
}

// random returns a matrix of random numbers of both signs, less than 2 in magnitude in every precision. A product of
// zeros takes less power than others, and uninitialised memory may hold NaNs.
func (m *memory) random(name string, rows, columns int, p pipelines.DType) vk.Range {
	if m.err != nil {
		return vk.Range{}
	}
	b, err := m.dev.NewBuffer(name, uint64(rows)*uint64(columns)*uint64(p.Size()))
	if err != nil {
		m.err = err
		return vk.Range{}
	}
	m.buffers = append(m.buffers, b)
	const block = 4 << 20
	data := make([]byte, min(b.Size(), block))
	rand.NewChaCha8([32]byte{}).Read(data) // never fails
	for i := 1; i < len(data); i += 2 {
		data[i] = data[i]&0xbf | 0x38 // the exponent's highest bits are 0111 in all three precisions
	}
	for at := uint64(0); at < b.Size() && m.err == nil; at += block {
		n := min(b.Size()-at, block)
		m.err = m.dev.Upload(m.ctx, vk.Transfer{Range: b.Range().Slice(at, n), Data: data[:n]})
	}
	return b.Range()
}

func (m *memory) close() (err error) {
	for _, b := range m.buffers {
		err = errors.Join(err, b.Close())
	}
	return err
}
