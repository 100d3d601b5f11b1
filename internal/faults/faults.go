//go:build linux

// Package faults makes Vulkan calls fail in tests. It builds testdata/loader.c, a Vulkan loader that stands before the real
// one and therefore sees every call of the library, whether made from Go or from C, and starts the test program again
// with it. Its tests let one call after the other fail: whatever fails, there is an error that names the call, nothing
// leaks, and the process can go on.
package faults

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"unsafe"

	"github.com/colt5-vulkan/colt5/vk"
)

// Results of Vulkan calls.
const (
	Timeout           = 2
	OutOfHostMemory   = -1
	OutOfDeviceMemory = -2
	DeviceLost        = -4
	Unknown           = -13
)

// Mode is what happens at a call.
type Mode uint32

// Modes.
const (
	Return Mode = iota // the call returns Fault.Result
	Lose               // the device is lost from the call on
	Hang               // the device hangs from the call on
)

// Fault is a call that fails.
type Fault struct {
	At       int    // the number of the call, from 1
	Function string // count the calls of this function; empty: of all that return a result
	Result   int32
	Mode     Mode
	Lasting  bool // all later calls fail too
}

// String describes the fault.
func (f Fault) String() string {
	name := f.Function
	if name == "" {
		name = "call"
	}
	text := fmt.Sprintf("%s %d: result %d", name, f.At, f.Result)
	switch {
	case f.Mode == Lose:
		text = fmt.Sprintf("%s %d: device lost", name, f.At)
	case f.Mode == Hang:
		text = fmt.Sprintf("%s %d: hang", name, f.At)
	case f.Lasting:
		text += " from then on"
	}
	return text
}

// Hidden is what a device or its driver lacks.
type Hidden uint32

// What Hide hides.
const (
	Nothing Hidden = iota
	Devices
	Vulkan12
	Compute
	BufferDeviceAddress
	HostQueryReset
	SubgroupArithmetic
	HostVisible
	QueueSubmit // the function
)

const (
	nameBytes  = 48
	traceCalls = 1 << 14
)

// kinds are the objects that are counted.
var kinds = [16]string{
	"instance", "debug messenger", "device", "buffer", "memory", "pipeline layout", "shader module", "pipeline", "pipeline cache",
	"command pool", "fence", "query pool",
}

// control is the memory that the loader shares: the struct of the same name in loader.c.
type control struct {
	at            uint64
	function      [nameBytes]byte
	result        int32
	mode          uint32
	lasting       uint32
	share         uint32
	gpu           uint32
	hide          uint32
	budget, usage uint64
	most          uint64
	memory        uint64
	calls         uint64
	fired         uint64
	failed        [nameBytes]byte
	live          [16]int64
	misuse        uint64
	misused       [nameBytes]byte
	trace         [traceCalls][nameBytes]byte
}

const (
	controlEnv = "COLT5_FAULTS_CONTROL"
	loaderEnv  = "COLT5_FAULTS_LOADER"
)

// Start builds the loader and starts the program again with it; in the program that was started it returns the control
// of the loader. It fails if the machine has no C compiler; without a device the error is vk.ErrNoDevice.
func Start() (*Loader, error) {
	if file := os.Getenv(controlEnv); file != "" {
		return attach(file)
	}
	if _, err := vk.List(); err != nil { // it also loads the real loader
		return nil, err
	}
	real, err := loadedLibrary()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "colt5-faults-")
	if err != nil {
		return nil, err
	}
	if err := start(dir, real); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return nil, errors.New("internal error: the program was not replaced")
}

func start(dir, real string) error {
	build := exec.Command("gcc", "-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC",
		"-o", filepath.Join(dir, "libvulkan.so.1"), "testdata/loader.c", "-ldl", "-lpthread")
	if text, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, text)
	}
	file := filepath.Join(dir, "control")
	if err := os.WriteFile(file, make([]byte, unsafe.Sizeof(control{})), 0o600); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	path := dir
	if before := os.Getenv("LD_LIBRARY_PATH"); before != "" {
		path += ":" + before
	}
	env := append(os.Environ(), controlEnv+"="+file, loaderEnv+"="+real, "LD_LIBRARY_PATH="+path)
	// go test would log what the tests open, to a file that a test's limit of file sizes makes fail, and then cache the result.
	args := slices.DeleteFunc(slices.Clone(os.Args), func(arg string) bool { return strings.HasPrefix(arg, "-test.testlogfile=") })
	return syscall.Exec(self, args, env)
}

var libraryPath = regexp.MustCompile(`/\S*/libvulkan\.so\S*`)

// loadedLibrary returns the path of the Vulkan loader that this process has loaded.
func loadedLibrary() (string, error) {
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return "", err
	}
	path := libraryPath.Find(maps)
	if path == nil {
		return "", errors.New("the Vulkan loader has another name than libvulkan.so.1")
	}
	return string(path), nil
}

// Loader controls the loader. Its methods must not be called while another goroutine uses a device.
type Loader struct{ c *control }

// attach maps the control, loads the loader, and removes the files of both.
func attach(file string) (_ *Loader, err error) {
	defer func() { err = errors.Join(err, os.RemoveAll(filepath.Dir(file))) }()
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := syscall.Mmap(int(f.Fd()), 0, int(unsafe.Sizeof(control{})), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	if _, err := vk.List(); err != nil {
		return nil, err
	}
	return &Loader{(*control)(unsafe.Pointer(&data[0]))}, nil
}

// Share makes the real instance, the real device and its pipelines outlive those of the library, so that opening a
// device again, and compiling the same kernels again, takes no time. Objects are counted all the same.
func (l *Loader) Share(on bool) {
	l.c.share = 0
	if on {
		l.c.share = 1
	}
}

// PretendGPU makes devices say that they are discrete GPUs.
func (l *Loader) PretendGPU(on bool) {
	l.c.gpu = 0
	if on {
		l.c.gpu = 1
	}
}

// Hide hides something of every device.
func (l *Loader) Hide(h Hidden) { l.c.hide = uint32(h) }

// SetBudget sets what VK_EXT_memory_budget says of every heap of devices that are opened then, in bytes; 0 restores what the
// driver says.
func (l *Loader) SetBudget(budget, usage uint64) { l.c.budget, l.c.usage = budget, usage }

// ComputeNothing makes devices that are opened then have so much memory, and compute nothing: kernels are not compiled,
// buffers are small, and submits do nothing. So calls of any size can be planned. 0 ends it.
func (l *Loader) ComputeNothing(memory uint64) { l.c.memory, l.c.most = memory, memory }

// SetMaxBuffer sets maxBufferSize; 0 restores the device's.
func (l *Loader) SetMaxBuffer(bytes uint64) { l.c.most = bytes }

// Inject sets the fault, and counts the calls anew. The zero Fault ends it.
func (l *Loader) Inject(f Fault) {
	c := l.c
	c.function = [nameBytes]byte{}
	copy(c.function[:nameBytes-1], f.Function)
	c.result, c.mode, c.lasting = f.Result, uint32(f.Mode), 0
	if f.Lasting {
		c.lasting = 1
	}
	c.calls, c.fired, c.failed, c.misuse, c.misused = 0, 0, [nameBytes]byte{}, 0, [nameBytes]byte{}
	c.at = uint64(f.At)
}

// Calls is the number of calls since Inject.
func (l *Loader) Calls() int { return int(l.c.calls) }

// Trace is the names of the calls since Inject.
func (l *Loader) Trace() []string {
	list := make([]string, min(l.c.calls, traceCalls))
	for i := range list {
		list[i] = text(l.c.trace[i][:])
	}
	return list
}

// Failed is the name of the first call that failed since Inject, and how many did.
func (l *Loader) Failed() (name string, times int) { return text(l.c.failed[:]), int(l.c.fired) }

// Live describes the objects that exist: "" for none.
func (l *Loader) Live() string {
	var list []string
	for i, n := range l.c.live {
		if n != 0 {
			list = append(list, fmt.Sprintf("%d %s", n, kinds[i]))
		}
	}
	return strings.Join(list, ", ")
}

// Forget forgets the objects that exist.
func (l *Loader) Forget() { l.c.live = [16]int64{} }

// Misuse is the name of the first function since Inject that destroyed an object that does not exist; "" for none.
func (l *Loader) Misuse() string { return text(l.c.misused[:]) }

func text(b []byte) string {
	if end := bytes.IndexByte(b, 0); end >= 0 {
		b = b[:end]
	}
	return string(b)
}
