// A Vulkan loader for tests. It stands before the real one, makes chosen calls fail, and counts the objects that exist.
// Package faults builds it as libvulkan.so.1, and controls it through a file that both map: COLT5_FAULTS_CONTROL. The real
// loader is COLT5_FAULTS_LOADER.
//
// Structures are declared with the layout of the Vulkan specification, as in package vk, so no headers are needed.
// Dispatchable handles are void*, all others uint64_t.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

// ---- control --------------------------------------------------------------------------------------------------------

enum { NAME = 48, TRACE = 1 << 14, KINDS = 16 };
enum { RETURN = 0, LOSE = 1, HANG = 2 };
enum { TIMEOUT = 2, NOT_READY = 1, LOST = -4 };

// Also declared in faults.go.
typedef struct {
	uint64_t at;            // fail this call, counted from 1; 0: none
	char function[NAME];    // count the calls of this function only; empty: of all that return a result
	int32_t result;         // what the call returns
	uint32_t mode;          // RETURN, LOSE: the device is lost from this call on, HANG: the device hangs from this call on
	uint32_t lasting;       // later calls fail too
	uint32_t share;         // real instances, devices and pipelines outlive the library's
	uint32_t gpu;           // devices say that they are discrete GPUs
	uint32_t hide;          // see enum below
	uint64_t budget, usage; // what VK_EXT_memory_budget says of every heap, where budget is not 0
	uint64_t most;          // maxBufferSize; 0: the device's
	uint64_t memory;        // size of every heap, of a device that computes nothing; 0: the device's
	// Written by this library:
	uint64_t calls;         // counted calls
	uint64_t fired;         // calls that failed
	char failed[NAME];      // the first of them
	int64_t live[KINDS];    // objects
	uint64_t misuse;        // objects destroyed that do not exist
	char misused[NAME];     // the first function that did
	char trace[TRACE][NAME]; // names of the counted calls
} control;

enum { HIDE_DEVICES = 1, HIDE_VULKAN12, HIDE_COMPUTE, HIDE_ADDRESS, HIDE_QUERY_RESET, HIDE_SUBGROUPS, HIDE_HOST_VISIBLE, HIDE_FUNCTION };

static control *c;
static void *real_loader;
static void *(*real_get)(void *, const char *);
static void *real_instance;
static void *last_device; // a lost device finishes what it has begun before the library hears of it
static pthread_mutex_t mu = PTHREAD_MUTEX_INITIALIZER;

static void die(const char *what) { fprintf(stderr, "loader.c: %s\n", what); abort(); }

__attribute__((constructor)) static void begin(void) {
	const char *file = getenv("COLT5_FAULTS_CONTROL"), *loader = getenv("COLT5_FAULTS_LOADER");
	if (!file || !loader) die("COLT5_FAULTS_CONTROL or COLT5_FAULTS_LOADER is not set");
	int fd = open(file, O_RDWR);
	if (fd < 0) die("cannot open the control file");
	c = mmap(NULL, sizeof *c, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (c == MAP_FAILED) die("cannot map the control file");
	real_loader = dlopen(loader, RTLD_NOW | RTLD_LOCAL);
	if (!real_loader) die("cannot open the real loader");
	real_get = (void *)(intptr_t)dlsym(real_loader, "vkGetInstanceProcAddr");
}

static void note(char *to, const char *name) { snprintf(to, NAME, "%s", name); }

// failing counts a call, and reports whether it fails.
static int failing(const char *name, int may_lose, int32_t *result) {
	pthread_mutex_lock(&mu);
	int fails = 0;
	uint64_t n = c->calls;
	if (!c->function[0] || strncmp(c->function, name, NAME) == 0) {
		if (n < TRACE) note(c->trace[n], name);
		n = ++c->calls;
		fails = c->at && (n == c->at || (n > c->at && c->lasting));
	}
	int reached = c->at && c->calls >= c->at, waits = strcmp(name, "vkWaitForFences") == 0, asks = strcmp(name, "vkGetFenceStatus") == 0;
	*result = c->result;
	if (c->mode == LOSE) fails = reached && may_lose, *result = LOST;
	if (c->mode == HANG) fails = reached && (waits || asks), *result = waits ? TIMEOUT : NOT_READY;
	if (fails && !c->fired++) note(c->failed, name);
	if (fails && c->mode == LOSE && last_device) {
		int32_t (*idle)(void *) = (void *)(intptr_t)real_get(real_instance, "vkDeviceWaitIdle");
		idle(last_device);
	}
	pthread_mutex_unlock(&mu);
	if (fails && c->mode == HANG && waits) nanosleep(&(struct timespec){0, 1000000}, NULL);
	return fails;
}

// ---- objects --------------------------------------------------------------------------------------------------------

enum { INSTANCE, MESSENGER, DEVICE, BUFFER, MEMORY, LAYOUT, MODULE, PIPELINE, CACHE, COMMAND_POOL, FENCE, QUERY_POOL };
static const uint64_t garbage = 0xdead0000beef0008; // what a call that fails writes in place of a handle

// Handles of objects that exist; one is listed as often as it was handed out.
static struct { uint64_t handle; int kind; } objects[1 << 16];
static uint32_t count;

static void add(int kind, uint64_t handle) {
	pthread_mutex_lock(&mu);
	if (count == sizeof objects / sizeof *objects) die("too many objects");
	objects[count].handle = handle, objects[count++].kind = kind;
	c->live[kind]++;
	pthread_mutex_unlock(&mu);
}

// removed forgets an object, and reports whether it existed.
static int removed(int kind, uint64_t handle, const char *name) {
	if (!handle) return 0;
	pthread_mutex_lock(&mu);
	uint32_t i = count;
	while (i > 0 && (objects[i - 1].handle != handle || objects[i - 1].kind != kind)) i--;
	if (i > 0) objects[i - 1] = objects[--count], c->live[kind]--;
	else if (!c->misuse++) note(c->misused, name);
	pthread_mutex_unlock(&mu);
	return i > 0;
}

// ---- calls ----------------------------------------------------------------------------------------------------------

#define REAL(name) static __typeof__(vk##name) *real; if (!real) real = (void *)(intptr_t)real_get(real_instance, "vk" #name)
#define REAL_GLOBAL(name) static __typeof__(vk##name) *real; if (!real) real = (void *)(intptr_t)real_get(NULL, "vk" #name)
#define FAIL(name, may_lose) int32_t r; if (failing("vk" #name, may_lose, &r)) return r

// A call that returns a result and makes no object.
#define CALL(name, may_lose, params, args) \
	static int32_t vk##name params { FAIL(name, may_lose); REAL(name); return real args; }
#define GLOBAL_CALL(name, params, args) \
	static int32_t vk##name params { FAIL(name, 0); REAL_GLOBAL(name); return real args; }

GLOBAL_CALL(EnumerateInstanceVersion, (uint32_t *v), (v))
GLOBAL_CALL(EnumerateInstanceLayerProperties, (uint32_t *n, void *p), (n, p))
GLOBAL_CALL(EnumerateInstanceExtensionProperties, (const char *l, uint32_t *n, void *p), (l, n, p))
CALL(GetPhysicalDeviceCooperativeMatrixPropertiesKHR, 0, (void *d, uint32_t *n, void *p), (d, n, p))
CALL(BindBufferMemory, 0, (void *d, uint64_t b, uint64_t m, uint64_t o), (d, b, m, o))
CALL(MapMemory, 0, (void *d, uint64_t m, uint64_t o, uint64_t s, uint32_t f, void **at), (d, m, o, s, f, at))
CALL(FlushMappedMemoryRanges, 0, (void *d, uint32_t n, const void *p), (d, n, p))
CALL(InvalidateMappedMemoryRanges, 0, (void *d, uint32_t n, const void *p), (d, n, p))
CALL(GetPipelineCacheData, 0, (void *d, uint64_t h, size_t *n, void *p), (d, h, n, p))
CALL(AllocateCommandBuffers, 0, (void *d, const void *i, void **b), (d, i, b))
CALL(ResetCommandPool, 0, (void *d, uint64_t h, uint32_t f), (d, h, f))
CALL(BeginCommandBuffer, 0, (void *b, const void *i), (b, i))
CALL(EndCommandBuffer, 0, (void *b), (b))
CALL(GetFenceStatus, 1, (void *d, uint64_t h), (d, h))
CALL(WaitForFences, 1, (void *d, uint32_t n, const uint64_t *p, uint32_t a, uint64_t t), (d, n, p, a, t))
CALL(ResetFences, 0, (void *d, uint32_t n, const uint64_t *p), (d, n, p))
CALL(GetPipelineExecutablePropertiesKHR, 0, (void *d, const void *i, uint32_t *n, void *p), (d, i, n, p))
CALL(GetPipelineExecutableStatisticsKHR, 0, (void *d, const void *i, uint32_t *n, void *p), (d, i, n, p))

// A call that makes an object, and the one that destroys it.
#define OBJECT(kind, create, destroy) \
	static int32_t vk##create(void *d, const void *i, const void *a, uint64_t *h) { \
		*h = garbage; \
		FAIL(create, 0); REAL(create); \
		if ((r = real(d, i, a, h)) == 0) add(kind, *h); \
		return r; \
	} \
	static void vk##destroy(void *d, uint64_t h, const void *a) { \
		REAL(destroy); \
		if (removed(kind, h, "vk" #destroy)) real(d, h, a); \
	}

OBJECT(MESSENGER, CreateDebugUtilsMessengerEXT, DestroyDebugUtilsMessengerEXT)
OBJECT(CACHE, CreatePipelineCache, DestroyPipelineCache)
OBJECT(COMMAND_POOL, CreateCommandPool, DestroyCommandPool)
OBJECT(FENCE, CreateFence, DestroyFence)
OBJECT(QUERY_POOL, CreateQueryPool, DestroyQueryPool)
OBJECT(MEMORY, AllocateMemory, FreeMemory)
OBJECT(LAYOUT, CreatePipelineLayout, DestroyPipelineLayout)

// VkBufferCreateInfo
typedef struct {
	int32_t type;
	const void *next;
	uint32_t flags;
	uint64_t size;
	uint32_t usage, sharing, families;
	const void *family;
} buffer_info;

static int32_t vkCreateBuffer(void *d, const void *i, const void *a, uint64_t *h) {
	*h = garbage;
	FAIL(CreateBuffer, 0);
	REAL(CreateBuffer);
	buffer_info info = *(const buffer_info *)i;
	if (c->memory && info.usage != 3) info.size = 4096; // all but the staging buffer, which the host writes
	if ((r = real(d, &info, a, h)) == 0) add(BUFFER, *h);
	return r;
}

static void vkDestroyBuffer(void *d, uint64_t h, const void *a) {
	REAL(DestroyBuffer);
	if (removed(BUFFER, h, "vkDestroyBuffer")) real(d, h, a);
}

static int32_t vkQueueSubmit(void *q, uint32_t n, const void *p, uint64_t f) {
	FAIL(QueueSubmit, 1);
	REAL(QueueSubmit);
	return c->memory ? real(q, 0, NULL, f) : real(q, n, p, f);
}

static int32_t vkGetQueryPoolResults(void *d, uint64_t h, uint32_t first, uint32_t n, size_t size, void *p, uint64_t step, uint32_t flags) {
	FAIL(GetQueryPoolResults, 1);
	REAL(GetQueryPoolResults);
	if (c->memory) memset(p, 0, size);
	return c->memory ? 0 : real(d, h, first, n, size, p, step, flags);
}

// VkInstanceCreateInfo
typedef struct {
	uint32_t type;
	const void *next;
	uint32_t flags;
	const void *app;
	uint32_t layers;
	const void *layer;
	uint32_t exts;
	const void *ext;
} instance_info;

static int32_t vkCreateInstance(const void *info, const void *a, void **out) {
	static void *shared;
	*out = (void *)garbage;
	FAIL(CreateInstance, 0);
	const instance_info *i = info;
	int share = c->share && i->layers == 0; // messages of a layer belong to one instance
	REAL_GLOBAL(CreateInstance);
	r = 0;
	if (share && shared) *out = shared;
	else r = real(info, a, out);
	if (r != 0) return r;
	if (share) shared = *out;
	if (!real_instance) { // functions are resolved with an instance that stays
		instance_info plain = *i;
		plain.next = NULL; // no messages
		if (real(&plain, a, &real_instance) != 0) die("cannot make a second instance");
	}
	add(INSTANCE, (uint64_t)(uintptr_t)*out);
	return 0;
}

static void vkDestroyInstance(void *h, const void *a) {
	REAL(DestroyInstance);
	if (removed(INSTANCE, (uint64_t)(uintptr_t)h, "vkDestroyInstance") && !c->share) real(h, a);
}

// VkDeviceCreateInfo
typedef struct {
	int32_t type;
	const void *next;
	uint32_t flags, queues;
	const void *queue;
	uint32_t layers;
	const void *layer;
	uint32_t exts;
	const char *const *ext;
	const void *features;
} device_info;

static int32_t vkCreateDevice(void *p, const void *i, const void *a, void **out) {
	static void *shared, *of;
	*out = (void *)garbage;
	FAIL(CreateDevice, 1);
	REAL(CreateDevice);
	r = 0;
	device_info info = *(const device_info *)i;
	const char *kept[64];
	uint32_t n = 0;
	for (uint32_t k = 0; k < info.exts && n < 64; k++) // the extension may be a pretence of this file
		if (strcmp(info.ext[k], "VK_EXT_memory_budget") != 0) kept[n++] = info.ext[k];
	info.exts = n, info.ext = kept;
	if (c->share && shared && of == p) *out = shared;
	else r = real(p, &info, a, out);
	if (r != 0) return r;
	if (c->share) shared = *out, of = p;
	last_device = *out;
	add(DEVICE, (uint64_t)(uintptr_t)*out);
	return 0;
}

static void vkDestroyDevice(void *h, const void *a) {
	REAL(DestroyDevice);
	if (!removed(DEVICE, (uint64_t)(uintptr_t)h, "vkDestroyDevice") || c->share) return;
	if (last_device == h) last_device = NULL;
	real(h, a);
}

#include "pipelines.h"
#include "properties.h"

// ---- entry points ---------------------------------------------------------------------------------------------------

static void *get(void *handle, const char *name, int device);
static void *vkGetDeviceProcAddr(void *d, const char *name) { return get(d, name, 1); }
void *vkGetInstanceProcAddr(void *i, const char *name) { return get(i, name, 0); }

#define EACH(X) \
	X(EnumerateInstanceVersion) X(EnumerateInstanceLayerProperties) X(EnumerateInstanceExtensionProperties) X(CreateInstance) \
	X(DestroyInstance) X(CreateDebugUtilsMessengerEXT) X(DestroyDebugUtilsMessengerEXT) X(EnumeratePhysicalDevices) \
	X(GetPhysicalDeviceCooperativeMatrixPropertiesKHR) X(EnumerateDeviceExtensionProperties) X(GetPhysicalDeviceProperties) \
	X(GetPhysicalDeviceMemoryProperties) X(GetPhysicalDeviceQueueFamilyProperties) X(GetPhysicalDeviceFeatures2) \
	X(GetPhysicalDeviceProperties2) X(GetPhysicalDeviceMemoryProperties2) X(CreateDevice) X(DestroyDevice) X(CreateBuffer) \
	X(DestroyBuffer) X(AllocateMemory) X(FreeMemory) X(BindBufferMemory) X(MapMemory) X(FlushMappedMemoryRanges) \
	X(InvalidateMappedMemoryRanges) X(CreatePipelineCache) X(DestroyPipelineCache) X(GetPipelineCacheData) X(CreateShaderModule) \
	X(DestroyShaderModule) X(CreatePipelineLayout) X(DestroyPipelineLayout) X(CreateComputePipelines) X(DestroyPipeline) \
	X(CreateCommandPool) X(DestroyCommandPool) X(AllocateCommandBuffers) X(ResetCommandPool) X(BeginCommandBuffer) \
	X(EndCommandBuffer) X(CreateQueryPool) X(DestroyQueryPool) X(GetQueryPoolResults) X(CreateFence) X(DestroyFence) \
	X(GetFenceStatus) X(WaitForFences) X(ResetFences) X(QueueSubmit) X(GetPipelineExecutablePropertiesKHR) \
	X(GetPipelineExecutableStatisticsKHR)

// Void functions that need no replacement. Any other name is one that this file does not know: the library must not use it.
static const char *const passed[] = {
	"vkGetDeviceQueue", "vkGetBufferMemoryRequirements", "vkGetBufferDeviceAddress", "vkCmdBindPipeline", "vkCmdPushConstants",
	"vkCmdDispatch", "vkCmdPipelineBarrier", "vkCmdFillBuffer", "vkCmdCopyBuffer", "vkCmdWriteTimestamp", "vkResetQueryPool",
};

static void nothing(void) {}

// refused is called in place of functions that this file does not know.
static void refused(void) { die("a function was called that loader.c does not replace: add it there"); }

static void *get(void *handle, const char *name, int device) {
	if (strcmp(name, "vkGetInstanceProcAddr") == 0) return (void *)(intptr_t)vkGetInstanceProcAddr;
	if (strcmp(name, "vkGetDeviceProcAddr") == 0) return (void *)(intptr_t)vkGetDeviceProcAddr;
	if (c->hide == HIDE_FUNCTION && strcmp(name, "vkQueueSubmit") == 0) return NULL;
	void *real = NULL;
	if (device) {
		void *(*of_device)(void *, const char *) = (void *)(intptr_t)real_get(real_instance, "vkGetDeviceProcAddr");
		real = of_device(handle, name);
	} else {
		real = real_get(handle, name);
	}
	if (!real) return NULL;
#define X(f) if (strcmp(name, "vk" #f) == 0) return (void *)(intptr_t)vk##f;
	EACH(X)
#undef X
	if (c->memory && strncmp(name, "vkCmd", 5) == 0) return (void *)(intptr_t)nothing;
	for (size_t i = 0; i < sizeof passed / sizeof *passed; i++)
		if (strcmp(name, passed[i]) == 0) return real;
	return (void *)(intptr_t)refused;
}
