// Instance-level Vulkan calls: the loader, instances with their validation messages, and the properties of physical
// devices.
#ifdef __linux__
#define _GNU_SOURCE // of dl_iterate_phdr
#endif
#include "native_private.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef _WIN32
#include <windows.h>
#else
#include <dlfcn.h>
#ifdef __GLIBC__
#include <link.h>
#include <malloc.h>
#endif
#endif

// ---- loader ---------------------------------------------------------------------------------------------------------

// c5_load opens a loader library, which stays open, and returns its vkGetInstanceProcAddr or NULL.
void *c5_load(const char *name) {
#ifdef _WIN32
	HMODULE lib = LoadLibraryA(name);
	return lib ? (void *)GetProcAddress(lib, "vkGetInstanceProcAddr") : NULL;
#else
	void *lib = dlopen(name, RTLD_NOW | RTLD_LOCAL);
	return lib ? dlsym(lib, "vkGetInstanceProcAddr") : NULL;
#endif
}

// ---- host memory ----------------------------------------------------------------------------------------------------

uint64_t c5_heap_bytes(void) {
#if defined(__GLIBC__) && (__GLIBC__ > 2 || __GLIBC__ == 2 && __GLIBC_MINOR__ >= 33)
	struct mallinfo2 m = mallinfo2(); // of all arenas
	return m.uordblks + m.hblkhd;
#else
	return 0;
#endif
}

void c5_trim_heap(void) {
#ifdef __GLIBC__
	malloc_trim(0); // of all arenas
#endif
}

// ---- instance and validation messages -------------------------------------------------------------------------------

static void lock(volatile int *l) { while (__sync_lock_test_and_set(l, 1)) {} }
static void unlock(volatile int *l) { __sync_lock_release(l); }

// ---- drivers stay loaded --------------------------------------------------------------------------------------------

// The loader unloads the drivers with the last instance. glibc does not always get back the thread-local storage of a library that
// it unloads, so one day it cannot load the driver again: NVIDIA's after 29 times. So drivers, and what they need, stay loaded.
#ifdef __GLIBC__
enum { MAX_LIBRARIES = 256 };
typedef struct { int skip, count; char *names[MAX_LIBRARIES]; } libraries;

static int count_library(struct dl_phdr_info *info, size_t size, void *count) {
	(void)info, (void)size;
	++*(int *)count;
	return 0;
}

static int add_library(struct dl_phdr_info *info, size_t size, void *to) {
	libraries *l = to;
	(void)size;
	if (l->skip-- > 0 || !info->dlpi_name[0] || l->count == MAX_LIBRARIES) return 0;
	if ((l->names[l->count] = strdup(info->dlpi_name))) l->count++;
	return 0;
}

static volatile int libraries_lock;
static int own_libraries; // of the process before its first instance

static void note_libraries(void) {
	lock(&libraries_lock);
	if (!own_libraries) dl_iterate_phdr(count_library, &own_libraries);
	unlock(&libraries_lock);
}

static void keep_libraries(void) {
	libraries l = {0};
	lock(&libraries_lock);
	l.skip = own_libraries;
	dl_iterate_phdr(add_library, &l);
	for (int i = 0; i < l.count; i++) {
		void *lib = dlopen(l.names[i], RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE);
		if (lib) dlclose(lib);
		free(l.names[i]);
	}
	unlock(&libraries_lock);
}
#else
static void note_libraries(void) {}
static void keep_libraries(void) {}
#endif

typedef struct { head h; uint32_t flags; const char *id; int32_t number; const char *text; } callback_data;

// on_message stores a message of the validation layer. It may be called from any thread.
static uint32_t VKAPI on_message(uint32_t severity, uint32_t kinds, const callback_data *m, void *user) {
	(void)severity; (void)kinds;
	c5_instance *in = user;
	const char *id = m->id ? m->id : "", *text = m->text ? m->text : ""; // newer layers do not repeat the id in the text
	lock(&in->lock);
	in->count++;
	size_t left = MESSAGE_BYTES - in->used, most = left < 2000 ? left : 2000;
	int n = snprintf(in->text + in->used, most, "%s: %s\n", id, text);
	if (n > 0 && (size_t)n >= most) n = (int)most - 1, in->text[in->used + most - 2] = '\n';
	if (n > 0) in->used += (size_t)n;
	unlock(&in->lock);
	return 0;
}

uint32_t c5_drain_messages(c5_instance *in, char *out, size_t size) {
	lock(&in->lock);
	size_t n = in->used < size - 1 ? in->used : size - 1;
	memcpy(out, in->text, n);
	out[n] = 0;
	uint32_t count = in->count;
	in->count = 0, in->used = 0;
	unlock(&in->lock);
	return count;
}

// find_layer returns VK_ERROR_LAYER_NOT_PRESENT if a layer is not installed.
static VkResult find_layer(c5_instance *in, const char *name, const char **call) {
	VkResult (VKAPI *list)(uint32_t *, void *) = (void *)in->get(NULL, *call = "vkEnumerateInstanceLayerProperties");
	typedef struct { char name[256]; uint32_t spec, impl; char text[256]; } layer;
	uint32_t n = 0;
	if (!list) return VK_ERROR_LAYER_NOT_PRESENT;
	VkResult r = list(&n, NULL);
	if (r < 0) return r;
	layer *l = calloc(n + 1, sizeof *l);
	if (!l) return VK_ERROR_OUT_OF_HOST_MEMORY;
	int found = 0;
	if ((r = list(&n, l)) >= 0)
		for (uint32_t i = 0; i < n; i++) found |= strcmp(l[i].name, name) == 0;
	free(l);
	return r < 0 ? r : found ? 0 : VK_ERROR_LAYER_NOT_PRESENT;
}

int c5_listed(const extension *e, uint32_t n, const char *name) {
	for (uint32_t i = 0; i < n; i++)
		if (strcmp(e[i].name, name) == 0) return 1;
	return 0;
}

// find_extension sets *found to whether the loader, or a layer, has an instance extension.
static VkResult find_extension(c5_instance *in, const char *layer, const char *name, int *found, const char **call) {
	VkResult (VKAPI *list)(const char *, uint32_t *, extension *) = (void *)in->get(NULL, *call = "vkEnumerateInstanceExtensionProperties");
	uint32_t n = 0;
	*found = 0;
	if (!list) return VK_ERROR_INITIALIZATION_FAILED;
	VkResult r = list(layer, &n, NULL);
	if (r < 0) return r;
	extension *e = calloc(n + 1, sizeof *e);
	if (!e) return VK_ERROR_OUT_OF_HOST_MEMORY;
	if ((r = list(layer, &n, e)) >= 0) *found = c5_listed(e, n, name);
	free(e);
	return r < 0 ? r : 0;
}

void *c5_instance_handle(c5_instance *in) { return in->handle; }

void c5_instance_free(c5_instance *in) {
	if (!in) return;
	if (in->handle) {
		void (VKAPI *end)(void *, uint64_t, const void *) = (void *)in->get(in->handle, "vkDestroyDebugUtilsMessengerEXT");
		if (end && in->messenger) end(in->handle, in->messenger, NULL);
		void (VKAPI *destroy)(void *, const void *) = (void *)in->get(in->handle, "vkDestroyInstance");
		keep_libraries();
		if (destroy) destroy(in->handle, NULL);
	}
	free(in);
}

static VkResult create_instance(c5_instance *in, int validate, const char **call) {
	VkResult (VKAPI *version)(uint32_t *) = (void *)in->get(NULL, *call = "vkEnumerateInstanceVersion");
	VkResult (VKAPI *create)(const void *, const void *, void **) = (void *)in->get(NULL, "vkCreateInstance");
	uint32_t api = 1u << 22;
	VkResult r = version ? version(&api) : 0;
	if (r != 0) return r;
	if (!create || api < (1u << 22 | 1u << 12)) return VK_ERROR_INCOMPATIBLE_DRIVER;
	if (api > (1u << 22 | 3u << 12)) api = 1u << 22 | 3u << 12;
	static const char *const validation = "VK_LAYER_KHRONOS_validation";
	const char *exts[4];
	uint32_t n = 0, flags = 0;
	int found;
	if ((r = find_extension(in, NULL, "VK_KHR_portability_enumeration", &found, call)) != 0) return r;
	if (found) exts[n++] = "VK_KHR_portability_enumeration", flags = 1;
	if (validate) {
		exts[n++] = "VK_EXT_debug_utils";
		if ((r = find_layer(in, validation, call)) != 0) return r;
		if ((r = find_extension(in, validation, "VK_EXT_validation_features", &found, call)) != 0) return r;
		if (found) exts[n++] = "VK_EXT_validation_features";
	}
	struct { head h; const char *app; uint32_t app_version; const char *engine; uint32_t engine_version, api; } app =
		{ {STYPE_APPLICATION_INFO, NULL}, "colt5", 1, "colt5", 1, api };
	static const int32_t enable[] = { 4 }; // VK_VALIDATION_FEATURE_ENABLE_SYNCHRONIZATION_VALIDATION_EXT
	struct { head h; uint32_t on; const int32_t *enabled; uint32_t off; const int32_t *disabled; } features =
		{ {STYPE_VALIDATION_FEATURES_EXT, NULL}, 1, enable, 0, NULL };
	struct { head h; uint32_t flags, severity, kinds; void *call, *user; } messenger =
		{ {STYPE_DEBUG_UTILS_MESSENGER_CREATE_INFO_EXT, &features}, 0, 0x1100 /* warning, error */,
			0x2 /* validation messages, not performance warnings */, (void *)on_message, in };
	struct { head h; uint32_t flags; const void *app; uint32_t layers; const char *const *layer; uint32_t exts; const char *const *ext; } info =
		{ {STYPE_INSTANCE_CREATE_INFO, validate ? &messenger : NULL}, flags, &app, validate ? 1 : 0, &validation, n, exts };
	*call = "vkCreateInstance";
	r = create(&info, NULL, &in->handle);
	if (r != 0) in->handle = NULL; // undefined after an error
	if (r != 0 || !validate) return r;
	VkResult (VKAPI *begin)(void *, const void *, const void *, uint64_t *) =
		(void *)in->get(in->handle, *call = "vkCreateDebugUtilsMessengerEXT");
	messenger.h.next = NULL;
	r = begin ? begin(in->handle, &messenger, NULL, &in->messenger) : VK_ERROR_EXTENSION_NOT_PRESENT;
	if (r != 0) in->messenger = 0;
	return r;
}

// c5_instance_new returns VK_ERROR_LAYER_NOT_PRESENT if the validation layer is wanted and not installed.
VkResult c5_instance_new(void *get_proc, int validate, c5_instance **out, const char **call) {
	*call = "calloc";
	c5_instance *in = calloc(1, sizeof *in);
	if (!in) return VK_ERROR_OUT_OF_HOST_MEMORY;
	in->get = (fn (VKAPI *)(void *, const char *))get_proc;
	note_libraries();
	VkResult r = create_instance(in, validate, call);
	if (r != 0) c5_instance_free(in);
	else *out = in;
	return r;
}

// ---- physical devices -----------------------------------------------------------------------------------------------

VkResult c5_physical_devices(c5_instance *in, uint32_t *count, void **devices) {
	VkResult (VKAPI *list)(void *, uint32_t *, void **) = (void *)in->get(in->handle, "vkEnumeratePhysicalDevices");
	return list ? list(in->handle, count, devices) : VK_ERROR_INITIALIZATION_FAILED;
}

VkResult c5_queue_families(c5_instance *in, void *physical, uint32_t *count, uint32_t *flags, uint32_t *timestamp_bits) {
	typedef struct { uint32_t flags, count, bits, granularity[3]; } family;
	void (VKAPI *get)(void *, uint32_t *, family *) = (void *)in->get(in->handle, "vkGetPhysicalDeviceQueueFamilyProperties");
	family f[C5_MAX_FAMILIES];
	if (!get) return VK_ERROR_INITIALIZATION_FAILED;
	if (*count > C5_MAX_FAMILIES) *count = C5_MAX_FAMILIES;
	get(physical, count, f);
	for (uint32_t i = 0; i < *count; i++) flags[i] = f[i].flags, timestamp_bits[i] = f[i].bits;
	return 0;
}

void c5_chain(chained *base, chained *s, int32_t type) {
	s->type = type;
	s->next = base->next;
	base->next = s;
}

VkResult c5_device_extensions(c5_instance *in, void *physical, extension **e, uint32_t *n, const char **call) {
	VkResult (VKAPI *list)(void *, const char *, uint32_t *, extension *) =
		(void *)in->get(in->handle, *call = "vkEnumerateDeviceExtensionProperties");
	*n = 0, *e = NULL;
	if (!list) return VK_ERROR_INITIALIZATION_FAILED;
	VkResult r = list(physical, NULL, n, NULL);
	if (r < 0 || *n == 0) return r < 0 ? r : 0;
	*e = calloc(*n, sizeof **e);
	r = *e ? list(physical, NULL, n, *e) : VK_ERROR_OUT_OF_HOST_MEMORY;
	if (r >= 0) return 0;
	free(*e);
	*n = 0, *e = NULL;
	return r;
}

static void probe_features(c5_instance *in, void *physical, const extension *e, uint32_t n, int v13, c5_probe *p) {
	chained base = {0}, f11 = {0}, f12 = {0}, size = {0}, coop = {0}, bf16 = {0}, coop2 = {0}, exec = {0};
	base.type = STYPE_PHYSICAL_DEVICE_FEATURES_2;
	c5_chain(&base, &f11, STYPE_PHYSICAL_DEVICE_VULKAN_1_1_FEATURES);
	c5_chain(&base, &f12, STYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES);
	if (v13 || c5_listed(e, n, "VK_EXT_subgroup_size_control"))
		c5_chain(&base, &size, STYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_FEATURES);
	if (c5_listed(e, n, "VK_KHR_cooperative_matrix")) c5_chain(&base, &coop, STYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_FEATURES_KHR);
	if (c5_listed(e, n, "VK_KHR_shader_bfloat16")) c5_chain(&base, &bf16, STYPE_PHYSICAL_DEVICE_SHADER_BFLOAT16_FEATURES_KHR);
	if (c5_listed(e, n, "VK_NV_cooperative_matrix2")) c5_chain(&base, &coop2, STYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_2_FEATURES_NV);
	if (c5_listed(e, n, "VK_KHR_pipeline_executable_properties"))
		c5_chain(&base, &exec, STYPE_PHYSICAL_DEVICE_PIPELINE_EXECUTABLE_PROPERTIES_FEATURES_KHR);
	void (VKAPI *get)(void *, void *) = (void *)in->get(in->handle, "vkGetPhysicalDeviceFeatures2");
	if (!get) return;
	get(physical, &base);
	p->shader_float64 = base.w[FEATURE_SHADER_FLOAT64];
	p->shader_int64 = base.w[FEATURE_SHADER_INT64];
	p->shader_int16 = base.w[FEATURE_SHADER_INT16];
	p->storage16 = f11.w[FEATURE11_STORAGE_BUFFER_16BIT];
	p->storage8 = f12.w[FEATURE12_STORAGE_BUFFER_8BIT];
	p->shader_float16 = f12.w[FEATURE12_SHADER_FLOAT16];
	p->shader_int8 = f12.w[FEATURE12_SHADER_INT8];
	p->subgroup_extended_types = f12.w[FEATURE12_SUBGROUP_EXTENDED_TYPES];
	p->host_query_reset = f12.w[FEATURE12_HOST_QUERY_RESET];
	p->buffer_device_address = f12.w[FEATURE12_BUFFER_DEVICE_ADDRESS];
	p->memory_model = f12.w[FEATURE12_MEMORY_MODEL], p->memory_model_device = f12.w[FEATURE12_MEMORY_MODEL_DEVICE_SCOPE];
	p->size_control = size.w[FEATURE_SUBGROUP_SIZE_CONTROL], p->full_subgroups = size.w[FEATURE_COMPUTE_FULL_SUBGROUPS];
	p->cooperative_matrix = coop.w[FEATURE_COOPERATIVE_MATRIX];
	p->bfloat16 = bf16.w[FEATURE_BFLOAT16_TYPE], p->bfloat16_cooperative = bf16.w[FEATURE_BFLOAT16_COOPERATIVE_MATRIX];
	p->cooperative_matrix2_workgroup = coop2.w[FEATURE_MATRIX2_WORKGROUP_SCOPE];
	p->cooperative_matrix2_flexible = coop2.w[FEATURE_MATRIX2_FLEXIBLE_DIMENSIONS];
	p->cooperative_matrix2_reductions = coop2.w[FEATURE_MATRIX2_REDUCTIONS];
	p->cooperative_matrix2_conversions = coop2.w[FEATURE_MATRIX2_CONVERSIONS];
	p->cooperative_matrix2_tensor = coop2.w[FEATURE_MATRIX2_TENSOR_ADDRESSING];
	p->cooperative_matrix2_block = coop2.w[FEATURE_MATRIX2_BLOCK_LOADS];
	p->executable_properties = exec.w[FEATURE_PIPELINE_EXECUTABLE_INFO];
	p->memory_budget = c5_listed(e, n, "VK_EXT_memory_budget");
	p->portability_subset = c5_listed(e, n, "VK_KHR_portability_subset");
}

static void probe_properties(c5_instance *in, void *physical, int size_control, int maintenance4, c5_probe *p) {
	struct { int32_t type; void *next; uint64_t w[128]; } base = {STYPE_PHYSICAL_DEVICE_PROPERTIES_2, NULL, {0}};
	struct { int32_t type; void *next; int32_t id; char name[256], info[256]; uint32_t conformance; } driver =
		{STYPE_PHYSICAL_DEVICE_DRIVER_PROPERTIES, NULL, 0, "", "", 0};
	struct { int32_t type; void *next; uint8_t device[16], driver[16], luid[8]; uint32_t node, luid_valid, size, stages, operations, quad;
		int32_t point; uint32_t views, instances, fault; uint32_t sets; uint64_t allocation; } v11 =
		{STYPE_PHYSICAL_DEVICE_VULKAN_1_1_PROPERTIES, &driver, {0}, {0}, {0}, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
	chained size = {0};
	base.next = &v11;
	if (size_control) size.type = STYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_PROPERTIES, size.next = base.next, base.next = &size;
	struct { int32_t type; void *next; uint64_t buffer; } m4 = {STYPE_PHYSICAL_DEVICE_MAINTENANCE_4_PROPERTIES, NULL, 0};
	if (maintenance4) m4.next = base.next, base.next = &m4;
	void (VKAPI *get)(void *, void *) = (void *)in->get(in->handle, "vkGetPhysicalDeviceProperties2");
	if (!get) return;
	get(physical, &base);
	memcpy(p->device_uuid, v11.device, 16);
	p->subgroup_size = v11.size, p->subgroup_stages = v11.stages, p->subgroup_operations = v11.operations;
	p->max_allocation = v11.allocation, p->max_buffer = m4.buffer;
	p->subgroup_min = p->subgroup_max = v11.size;
	if (size_control && size.w[0]) p->subgroup_min = size.w[0], p->subgroup_max = size.w[1], p->max_workgroup_subgroups = size.w[2];
	memcpy(p->driver_name, driver.name, 256);
	memcpy(p->driver_info, driver.info, 256);
}

static VkResult probe_matrix_shapes(c5_instance *in, void *physical, c5_probe *p, const char **call) {
	typedef struct { int32_t type; void *next; c5_matrix_shape s; } shape;
	VkResult (VKAPI *list)(void *, uint32_t *, shape *) =
		(void *)in->get(in->handle, *call = "vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR");
	shape s[C5_MAX_MATRIX_SHAPES];
	memset(s, 0, sizeof s);
	for (int i = 0; i < C5_MAX_MATRIX_SHAPES; i++) s[i].type = STYPE_COOPERATIVE_MATRIX_PROPERTIES_KHR;
	uint32_t n = C5_MAX_MATRIX_SHAPES;
	if (!list) return 0;
	VkResult r = list(physical, &n, s);
	if (r < 0) return r;
	p->matrix_shape_count = n;
	for (uint32_t i = 0; i < n; i++) p->matrix_shapes[i] = s[i].s;
	return 0;
}

VkResult c5_probe_device(c5_instance *in, void *physical, uint32_t api, c5_probe *p, const char **call) {
	memset(p, 0, sizeof *p);
	if (api < (1u << 22 | 2u << 12)) return 0; // Vulkan 1.0 or 1.1: not usable, all capabilities stay 0
	uint32_t n;
	extension *e;
	VkResult r = c5_device_extensions(in, physical, &e, &n, call);
	if (r != 0) return r;
	int v13 = api >= (1u << 22 | 3u << 12);
	probe_features(in, physical, e, n, v13, p);
	probe_properties(in, physical, p->size_control, v13 || c5_listed(e, n, "VK_KHR_maintenance4"), p);
	if (p->cooperative_matrix) r = probe_matrix_shapes(in, physical, p, call);
	free(e);
	return r;
}

uint32_t c5_heap_budget(c5_instance *in, void *physical, uint32_t heap, uint64_t *budget, uint64_t *usage) {
	struct { int32_t type; void *next; uint64_t budget[16], usage[16]; } b =
		{STYPE_PHYSICAL_DEVICE_MEMORY_BUDGET_PROPERTIES_EXT, NULL, {0}, {0}};
	struct { int32_t type; void *next; uint64_t w[128]; } m = {STYPE_PHYSICAL_DEVICE_MEMORY_PROPERTIES_2, &b, {0}};
	void (VKAPI *get)(void *, void *) = (void *)in->get(in->handle, "vkGetPhysicalDeviceMemoryProperties2");
	if (!get || heap >= 16) return 0;
	get(physical, &m);
	*budget = b.budget[heap], *usage = b.usage[heap];
	return 1;
}
