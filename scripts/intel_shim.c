// An emulated Intel GPU for Mesa's Vulkan driver ANV. Pipelines compile, but nothing runs: submitted work completes immediately.
//
//   gcc -O2 -Wall -Wextra -shared -fPIC -o intel_shim.so intel_shim.c        load it with LD_PRELOAD; INTEL_SHIM_DEVICE names the chip
//
// ANV enumerates GPUs with libdrm, opens the device file, and calls ioctls of the kernel driver, i915 or xe. This library replaces all
// three. The device file is a large, sparse memfd, and a buffer object is a range of it, so mmap needs no replacement. Other ioctls
// and queries return EINVAL, as on an older kernel; INTEL_SHIM_TRACE=1 prints every ioctl. `scripts/vulkan-tools shim` builds and loads it.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

// Properties of a chip that the kernel driver reports and that ANV does not derive from the PCI id. An "SS" is a subslice (up to Gen11),
// a dual subslice (up to Xe-HPG) or an Xe core. Revisions, subslices and memory sizes have not been compared with hardware.
static const struct chip {
	const char *name;
	u16 id, revision;
	int xe;       // the kernel driver
	int ss, eus;  // subslices, execution units of each
	int threads;  // hardware threads of an execution unit; 0: the firmware has no such table
	int clock;    // of timestamps, Hz
	int vram;     // GiB
	int ip;       // graphics IP version * 100, from Xe2 on
} chips[] = {
	{"skl", 0x1912, 6, 0, 3, 8, 0, 12000000, 0, 0},         // UHD 530, Gen9
	{"icl", 0x8a52, 7, 0, 8, 8, 0, 12000000, 0, 0},         // Iris Plus G7, Gen11
	{"tgl", 0x9a49, 3, 0, 6, 16, 0, 19200000, 0, 0},        // Iris Xe, Gen12
	{"dg2", 0x56a0, 8, 0, 32, 16, 8, 19200000, 16, 0},      // Arc A770, Xe-HPG
	{"mtl", 0x7d55, 8, 0, 8, 16, 8, 19200000, 0, 0},        // Core Ultra 100 "Arc", Xe-LPG
	{"lnl", 0x64a0, 4, 1, 8, 8, 8, 19200000, 0, 2004},      // Core Ultra 200V, Xe2
	{"bmg", 0xe20b, 4, 1, 20, 8, 8, 19200000, 12, 2001},    // Arc B580, Xe2
	{"ptl", 0xb080, 4, 1, 12, 8, 10, 19200000, 0, 3000},    // Core Ultra 300, Xe3
};
static const struct chip *chip;
static int trace;

__attribute__((constructor)) static void start(void) {
	const char *name = getenv("INTEL_SHIM_DEVICE");
	if (!name) name = "dg2";
	trace = getenv("INTEL_SHIM_TRACE") != NULL;
	for (size_t i = 0; i < sizeof chips / sizeof *chips; i++)
		if (!strcmp(name, chips[i].name)) chip = &chips[i];
	if (!chip) {
		fprintf(stderr, "intel_shim: unknown chip %s, want one of", name);
		for (size_t i = 0; i < sizeof chips / sizeof *chips; i++) fprintf(stderr, " %s", chips[i].name);
		fprintf(stderr, "\n");
		_exit(2);
	}
}

static int fail(int error) {
	errno = error;
	return -1;
}

static const u64 system_memory = 16ull << 30;
static u64 vram(void) { return (u64)chip->vram << 30; }

// libdrm: one device. Everything is static, so nothing is freed.

struct device {
	char **nodes; // paths: primary, control, render
	int available_nodes, bus_type;
	void *bus, *info;
};
struct bus { u16 domain; u8 bus, dev, func; };
struct info { u16 vendor, device, subvendor, subdevice; u8 revision; };

static char render_node[] = "/dev/dri/renderD128";

static struct device *device(void) {
	static char primary[] = "/dev/dri/card0", none[] = "";
	static char *nodes[] = {primary, none, render_node};
	static struct bus bus = {0, 3, 0, 0};
	static struct info info = {.vendor = 0x8086, .subvendor = 0x8086};
	static struct device d = {nodes, 1 << 2, 0, &bus, &info};
	info.device = chip->id;
	info.revision = chip->revision;
	return &d;
}

int drmGetDevices2(u32 flags, struct device **list, int max) {
	(void)flags;
	if (list && max > 0) list[0] = device();
	return 1;
}
int drmGetDevice2(int fd, u32 flags, struct device **one) {
	(void)fd, (void)flags;
	*one = device();
	return 0;
}
void drmFreeDevice(struct device **one) { *one = NULL; }
void drmFreeDevices(struct device **list, int count) { (void)list, (void)count; }

// The device file.

static int open_path(const char *path, int flags, int mode) {
	if (strcmp(path, render_node)) return syscall(SYS_openat, AT_FDCWD, path, flags, mode);
	int fd = memfd_create("intel_shim", MFD_CLOEXEC);
	if (fd >= 0 && ftruncate(fd, 1ll << 46)) return close(fd), -1;
	return fd;
}

#define OPEN(name) \
	int name(const char *path, int flags, ...) { \
		va_list list; \
		va_start(list, flags); \
		int mode = flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(list, int) : 0; \
		va_end(list); \
		return open_path(path, flags, mode); \
	}
OPEN(open)
OPEN(open64)
int __open_2(const char *path, int flags) { return open_path(path, flags, 0); }
int __open64_2(const char *path, int flags) { return open_path(path, flags, 0); }

// Buffer objects: handle h is the range of the device file that starts at h * unit. Handles are not reused; closing one frees its memory.

enum { unit = 1 << 16, max_handles = 1 << 24 };
static u32 next_handle = 1;
static u32 sizes[max_handles]; // in units

static u32 new_buffer(u64 size) {
	u32 units = (size + unit - 1) / unit;
	u32 h = __atomic_fetch_add(&next_handle, units ? units : 1, __ATOMIC_RELAXED);
	if (h >= max_handles) return 0;
	sizes[h] = units;
	return h;
}

static int close_buffer(int fd, u32 h) {
	if (h < max_handles && sizes[h]) fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (u64)h * unit, (u64)sizes[h] * unit);
	return 0;
}

// new_id returns an id for a context, an address space, a queue or a synchronisation object.
static u32 new_id(void) {
	static u32 last;
	return __atomic_add_fetch(&last, 1, __ATOMIC_RELAXED);
}

// The result of a query. A caller queries twice: for the size, then for the data.

struct result {
	u32 size;
	u8 data[1024];
};

static void add(struct result *a, const void *data, u32 size) {
	memcpy(a->data + a->size, data, size);
	a->size += size;
}
#define ADD(a, type, ...) add(a, &(type)__VA_ARGS__, sizeof(type))

// The firmware's table (hwconfig): key, number of words, words.
static void hwconfig(struct result *a) {
	u32 table[] = {3, 1, chip->eus, 15, 1, chip->threads}; // execution units per subslice, threads of one
	if (chip->threads) add(a, table, sizeof table);
}

enum { render = 0, copy = 1, compute = 4 }; // classes of engines
static int engines(void) { return chip->threads ? 3 : 2; } // before Xe-HPG there is no compute engine
static const u16 engine_class[] = {render, copy, compute};

// The i915 driver.

static void i915_topology(struct result *a) {
	u16 head[] = {0, 1, chip->ss, chip->eus, 1, (chip->ss + 7) / 8, 1 + (chip->ss + 7) / 8, (chip->eus + 7) / 8};
	add(a, head, sizeof head);
	ADD(a, u8, {1}); // bit masks of the slices, of the subslices, and of the units of each subslice
	u32 all = (1ull << chip->ss) - 1, units = (1u << chip->eus) - 1;
	add(a, &all, head[5]);
	for (int i = 0; i < chip->ss; i++) add(a, &units, head[7]);
}

struct i915_engine { u16 class, instance; u32 pad; u64 flags, capabilities; u16 logical, pad1[3]; u64 pad2[3]; };
struct i915_region { u16 class, instance; u32 pad; u64 size, free, visible_size, visible_free, pad1[6]; };

static int i915_query(u64 id, struct result *a) {
	switch (id) {
	case 1: case 6: i915_topology(a); return 0; // for compute, for geometry
	case 2:
		ADD(a, u64[2], {engines()});
		for (int i = 0; i < engines(); i++) ADD(a, struct i915_engine, {.class = engine_class[i]});
		return 0;
	case 4:
		ADD(a, u64[2], {chip->vram ? 2 : 1});
		ADD(a, struct i915_region, {0, 0, 0, system_memory, system_memory, 0, 0, {0}});
		if (chip->vram) ADD(a, struct i915_region, {1, 0, 0, vram(), vram(), vram(), vram(), {0}});
		return 0;
	case 5: hwconfig(a); return a->size ? 0 : -ENODEV;
	case 7: ADD(a, u32[4], {0, 1, 13, 0}); return 0; // version of the firmware's scheduler
	}
	return -EINVAL;
}

static int i915_param(int id, int *value) {
	switch (id) {
	case 4: *value = chip->id; return 0;
	case 32: *value = chip->revision; return 0;
	case 33: *value = chip->ss; return 0;
	case 34: *value = chip->ss * chip->eus; return 0;
	case 40: *value = 4; return 0; // buffers are mapped by an offset
	case 51: case 57: *value = chip->clock; return 0;
	case 18: *value = 2; return 0; // each process has its own address space
	case 9: case 17: case 19: case 25: case 26: case 30: case 37: case 43: case 44: case 45: case 48: case 49: case 50: case 52: case 53: case 55: case 56:
		*value = 1; // features of Linux 4.x and later
		return 0;
	case 58: return fail(ENODEV); // protected content
	}
	return fail(EINVAL);
}

static int i915(u32 nr, void *arg) {
	u64 *w = arg; // the argument as 64-bit words, and as 32-bit words
	u32 *d = arg;
	switch (nr) {
	case 0x06: return i915_param(d[0], (int *)w[1]);
	case 0x39: { // queries: their number and address
		struct query { u64 id; int32_t size; u32 flags; u64 data; } *q = (void *)w[1];
		for (u32 i = 0; i < d[0]; i++, q++) {
			struct result a = {0};
			int r = i915_query(q->id, &a);
			if (!r && q->size && q->size < (int32_t)a.size) r = -EINVAL;
			if (!r && q->size) memcpy((void *)q->data, a.data, a.size);
			q->size = r ? r : (int32_t)a.size;
		}
		return 0;
	}
	case 0x1b: case 0x3c: d[2] = new_buffer(w[0]); return 0; // create a buffer
	case 0x33: d[5] = new_buffer(0); return 0;               // a buffer of user memory
	case 0x24: w[1] = (u64)d[0] * unit; return 0;            // the mmap offset of a buffer
	case 0x17: d[1] = 0; return 0;                           // not busy
	case 0x2d: d[0] = new_id(); return 0;                    // a context
	case 0x3a: d[3] = new_id(); return 0;                    // an address space
	case 0x34:                                               // context parameters
		w[2] = w[1] == 3 ? 1ull << 48 : w[1] == 9;           // size of the address space; whether the context has its own
		return 0;
	case 0x23: w[0] = w[1] = 4ull << 30; return 0;
	case 0x32: d[2] = d[3] = d[4] = 0; return 0;             // no resets
	case 0x1f: case 0x26: case 0x29: case 0x2c: case 0x2e: case 0x2f: case 0x35: case 0x3b:
		return 0; // set domain, madvise, submit, wait, destroy context, set caching, set context parameter, destroy address space
	}
	return fail(EINVAL);
}

// The xe driver.

struct xe_engine { u16 class, instance, gt, pad; u64 pad1[3]; };
struct xe_region { u16 class, instance; u32 page; u64 size, used, visible_size, visible_used, pad[6]; };
struct xe_gt { u16 type, tile, id, pad[3]; u32 clock, pad1; u64 near, far; u16 major, minor, rev, pad2; u64 pad3[7]; };
struct xe_mask { u16 gt, type; u32 bytes; u64 mask; };

static int xe_query(u32 id, struct result *a) {
	u32 page = chip->vram ? 1 << 16 : 1 << 12;
	switch (id) {
	case 0:
		ADD(a, u64, {engines()});
		for (int i = 0; i < engines(); i++) ADD(a, struct xe_engine, {.class = engine_class[i]});
		return 0;
	case 1:
		ADD(a, u64, {chip->vram ? 2 : 1});
		ADD(a, struct xe_region, {0, 0, 1 << 12, system_memory, 0, 0, 0, {0}});
		if (chip->vram) ADD(a, struct xe_region, {1, 1, page, vram(), 0, vram(), 0, {0}});
		return 0;
	case 2: ADD(a, u64[6], {5, (u64)chip->revision << 16 | chip->id, chip->vram != 0, page, 48, 1}); return 0;
	case 3:
		ADD(a, u64, {1});
		ADD(a, struct xe_gt, {.clock = chip->clock, .near = 1, .major = chip->ip / 100, .minor = chip->ip % 100, .rev = chip->revision});
		return 0;
	case 4: hwconfig(a); return 0;
	case 5:
		ADD(a, struct xe_mask, {0, 1, 8, (1ull << chip->ss) - 1});  // subslices for geometry
		ADD(a, struct xe_mask, {0, 2, 8, (1ull << chip->ss) - 1});  // and for compute
		ADD(a, struct xe_mask, {0, 3, 8, 0xff});                    // banks of the cache
		ADD(a, struct xe_mask, {0, 5, 8, (1ull << chip->eus) - 1}); // units of each subslice
		return 0;
	}
	return fail(EINVAL);
}

static int xe(u32 nr, void *arg) {
	u64 *w = arg;
	u32 *d = arg;
	switch (nr) {
	case 0x00: { // a query: its id, the size and address of the result
		struct result a = {0};
		if (d[2] == 7) { // version of the firmware's scheduler
			u32 *version = (u32 *)w[2];
			version[1] = 0, version[2] = 1, version[3] = 13, version[4] = 0;
			return 0;
		}
		if (xe_query(d[2], &a)) return -1;
		if (d[3] && d[3] < a.size) return fail(EINVAL);
		if (d[3]) memcpy((void *)w[2], a.data, a.size);
		d[3] = a.size;
		return 0;
	}
	case 0x01: d[7] = new_buffer(w[1]); return 0;
	case 0x02: w[2] = (u64)d[2] * unit; return 0;
	case 0x03: d[3] = new_id(); return 0; // an address space
	case 0x06: d[5] = new_id(); return 0; // a queue
	case 0x08: w[2] = 0; return 0;        // not banned
	case 0x04: case 0x05: case 0x07: case 0x09: case 0x0a: return 0; // destroy address space, bind, destroy queue, submit, wait
	}
	return fail(EINVAL);
}

// The ioctls that all DRM drivers have.

static int drm(int fd, u32 nr, void *arg) {
	u64 *w = arg;
	u32 *d = arg;
	switch (nr) {
	case 0x00: { // the name of the driver
		struct { int version[3]; u64 name_size; char *name; u64 date_size; char *date; u64 text_size; char *text; } *v = arg;
		const char *name = chip->xe ? "xe" : "i915";
		if (v->name) memcpy(v->name, name, strnlen(name, v->name_size));
		v->version[0] = 1, v->version[1] = v->version[2] = 0;
		v->name_size = strlen(name), v->date_size = v->text_size = 0;
		return 0;
	}
	case 0x09: return close_buffer(fd, d[0]);
	case 0x0c: w[1] = w[0] == 0x13 || w[0] == 0x14; return 0; // capabilities: syncobj and timeline syncobj
	case 0xbf: d[0] = new_id(); return 0; // create a synchronisation object, which is always signalled
	case 0xcb: {                          // query its value
		u64 *points = (u64 *)w[1];
		for (u32 i = 0; i < d[4]; i++) points[i] = INT64_MAX;
		return 0;
	}
	case 0xc3: d[6] = 0; return 0; // wait
	case 0xca: d[8] = 0; return 0;
	case 0xc0: case 0xc4: case 0xc5: case 0xcc: case 0xcd: return 0; // destroy, reset, signal, transfer
	}
	return fail(EINVAL);
}

int ioctl(int fd, unsigned long request, ...) {
	va_list list;
	va_start(list, request);
	void *arg = va_arg(list, void *);
	va_end(list);
	if (_IOC_TYPE(request) != 'd') return syscall(SYS_ioctl, fd, request, arg);
	u32 nr = _IOC_NR(request);
	int r = nr < 0x40 || nr >= 0xa0 ? drm(fd, nr, arg) : chip->xe ? xe(nr - 0x40, arg) : i915(nr - 0x40, arg);
	if (trace) fprintf(stderr, "intel_shim: ioctl %#x (%#x %#x %#x): %d\n", nr, ((u32 *)arg)[0], ((u32 *)arg)[1], ((u32 *)arg)[2], r);
	return r;
}
