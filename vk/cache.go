package vk

// #include "native.h"
import "C"

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"unsafe"

	"github.com/colt5-vulkan/colt5/internal/atomicfile"
	vulkan "github.com/vulkan-go/vulkan"
)

// cache is the driver's pipeline cache, which is stored on disk: one file per device and driver version.
type cache struct {
	dev    *Device
	handle uint64
	file   string // empty: not stored
	strict bool   // the caller named the directory, so a failed write is an error
	sum    [sha256.Size]byte
}

const (
	cacheMagic    = "colt5 pipeline cache 1\n"
	maxCacheBytes = 1 << 30 // of a file; a larger one is treated as damaged
)

func (c *cache) open(d *Device, dir string) error {
	c.dev = d
	c.strict = dir != ""
	if dir == "" {
		if user, err := os.UserCacheDir(); err == nil {
			dir = filepath.Join(user, "colt5")
		}
	}
	var data []byte
	if dir != "" && dir != "-" {
		c.file = filepath.Join(dir, fmt.Sprintf("pipelines-%s-%08x.cache", d.info.UUID, d.info.driver))
		data = readCache(c.file)
	}
	c.sum = sha256.Sum256(data)
	err := c.create(data)
	if err != nil && data != nil {
		err = c.create(nil) // a driver may reject the data of another build
	}
	if err != nil {
		return fmt.Errorf("vk: %w", err)
	}
	return nil
}

func (c *cache) create(data []byte) error {
	return c.dev.check("vkCreatePipelineCache", int32(C.c5_cache_new(c.dev.c, unsafe.Pointer(unsafe.SliceData(data)), C.size_t(len(data)), (*C.uint64_t)(&c.handle))))
}

// readCache returns the data of a cache file, or nil if the file is missing or damaged, because a cache can always be
// rebuilt.
func readCache(file string) []byte {
	raw, err := atomicfile.Read(file, maxCacheBytes)
	const head = len(cacheMagic) + sha256.Size
	if err != nil || len(raw) <= head || string(raw[:len(cacheMagic)]) != cacheMagic {
		return nil
	}
	data := raw[head:]
	if sum := sha256.Sum256(data); !bytes.Equal(sum[:], raw[len(cacheMagic):head]) {
		return nil
	}
	return data
}

// close writes the cache to disk, if it changed, and destroys it.
func (c *cache) close() error {
	if c.handle == 0 {
		return nil
	}
	err := c.save()
	vulkan.DestroyPipelineCache(c.dev.handle, *(*vulkan.PipelineCache)(unsafe.Pointer(&c.handle)), nil)
	c.handle = 0
	if err != nil && c.strict {
		return fmt.Errorf("vk: Device.Close: pipeline cache %s: %w", c.file, err)
	}
	return nil
}

func (c *cache) save() error {
	if c.file == "" || c.dev.lost.Load() {
		return nil
	}
	var size C.size_t
	if err := check("vkGetPipelineCacheData", int32(C.c5_cache_data(c.dev.c, C.uint64_t(c.handle), &size, nil))); err != nil || size == 0 {
		return err
	}
	data := make([]byte, size)
	if err := check("vkGetPipelineCacheData", int32(C.c5_cache_data(c.dev.c, C.uint64_t(c.handle), &size, unsafe.Pointer(&data[0])))); err != nil {
		return err
	}
	data = data[:size]
	sum := sha256.Sum256(data)
	if sum == c.sum {
		return nil
	}
	return writeFile(c.file, []byte(cacheMagic), sum[:], data)
}

// writeFile replaces a file, and makes its directory if needed.
func writeFile(file string, parts ...[]byte) error {
	if err := makeDir(file); err != nil {
		return err
	}
	return atomicfile.Write(file, parts...)
}

// makeDir makes the directory of a file if needed.
func makeDir(file string) error { return os.MkdirAll(filepath.Dir(file), 0o755) }

// statValue converts a VkPipelineExecutableStatisticValueKHR, whose format is bool, int64, uint64 or float64.
func statValue(format uint32, raw uint64) float64 {
	switch format {
	case 0:
		return float64(uint32(raw))
	case 1:
		return float64(int64(raw))
	case 3:
		return math.Float64frombits(raw)
	}
	return float64(raw)
}
