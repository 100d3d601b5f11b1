// What there is before a device: the loader, instances with their validation messages, and what physical devices can do.
#include "native_private.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef _WIN32
#include <windows.h>
#else
#include <dlfcn.h>
#endif

// ---- loader ---------------------------------------------------------------------------------------------------------

// c5_load opens a loader and returns its vkGetInstanceProcAddr, or nothing. What was opened stays open.
void *c5_load(const char *name) {
#ifdef _WIN32
	HMODULE lib = LoadLibraryA(name);
	return lib ? (void *)GetProcAddress(lib, "vkGetInstanceProcAddr") : NULL;
#else
	void *lib = dlopen(name, RTLD_NOW | RTLD_LOCAL);
	return lib ? dlsym(lib, "vkGetInstanceProcAddr") : NULL;
#endif
}

// ---- instance and validation messages -------------------------------------------------------------------------------

static void lock(volatile int *l) { while (__sync_lock_test_and_set(l, 1)) {} }
static void unlock(volatile int *l) { __sync_lock_release(l); }

typedef struct { head h; uint32_t flags; const char *id; int32_t number; const char *text; } callback_data;

// on_message keeps what the validation layer says until the Go side asks; it may be called from any thread.
static uint32_t VKAPI on_message(uint32_t severity, uint32_t kinds, const callback_data *m, void *user) {
	(void)severity; (void)kinds;
	c5_instance *in = user;
	const char *id = m->id ? m->id : "", *text = m->text ? m->text : ""; // newer layers do not repeat the id in the text
	lock(&in->lock);
	in->count++;
	size_t room = MESSAGE_SPACE - in->used, most = room < 2000 ? room : 2000;
	int n = snprintf(in->text + in->used, most, "%s: %s\n", id, text);
	if (n > 0 && (size_t)n >= most) n = (int)most - 1, in->text[in->used + most - 2] = '\n';
	if (n > 0) in->used += (size_t)n;
	unlock(&in->lock);
	return 0;
}

uint32_t c5_messages(c5_instance *in, char *out, size_t size) {
	lock(&in->lock);
	size_t n = in->used < size - 1 ? in->used : size - 1;
	memcpy(out, in->text, n);
	out[n] = 0;
	uint32_t count = in->count;
	in->count = 0, in->used = 0;
	unlock(&in->lock);
	return count;
}

static int has_layer(c5_instance *in, const char *name) {
	R (VKAPI *list)(uint32_t *, void *) = (void *)in->get(NULL, "vkEnumerateInstanceLayerProperties");
	typedef struct { char name[256]; uint32_t spec, impl; char text[256]; } layer;
	uint32_t n = 0;
	if (!list || list(&n, NULL) != 0 || n == 0) return 0;
	layer *l = calloc(n, sizeof *l);
	int found = 0;
	if (l && list(&n, l) >= 0)
		for (uint32_t i = 0; i < n; i++) found |= strcmp(l[i].name, name) == 0;
	free(l);
	return found;
}

int c5_listed(const extension *e, uint32_t n, const char *name) {
	for (uint32_t i = 0; i < n; i++)
		if (strcmp(e[i].name, name) == 0) return 1;
	return 0;
}

static int instance_extension(c5_instance *in, const char *layer, const char *name) {
	R (VKAPI *list)(const char *, uint32_t *, extension *) = (void *)in->get(NULL, "vkEnumerateInstanceExtensionProperties");
	uint32_t n = 0;
	if (!list || list(layer, &n, NULL) != 0 || n == 0) return 0;
	extension *e = calloc(n, sizeof *e);
	int found = e && list(layer, &n, e) >= 0 && c5_listed(e, n, name);
	free(e);
	return found;
}

void *c5_instance_handle(c5_instance *in) { return in->handle; }

void c5_instance_free(c5_instance *in) {
	if (!in) return;
	if (in->handle) {
		void (VKAPI *end)(void *, uint64_t, const void *) = (void *)in->get(in->handle, "vkDestroyDebugUtilsMessengerEXT");
		if (end && in->messenger) end(in->handle, in->messenger, NULL);
		void (VKAPI *destroy)(void *, const void *) = (void *)in->get(in->handle, "vkDestroyInstance");
		if (destroy) destroy(in->handle, NULL);
	}
	free(in);
}

// c5_instance_new returns VK_ERROR_LAYER_NOT_PRESENT (-6) when validation is wanted and its layer is not installed.
R c5_instance_new(void *get_proc, int validate, c5_instance **out) {
	c5_instance *in = calloc(1, sizeof *in);
	if (!in) return -1;
	in->get = (fn (VKAPI *)(void *, const char *))get_proc;
	R (VKAPI *create)(const void *, const void *, void **) = (void *)in->get(NULL, "vkCreateInstance");
	R (VKAPI *version)(uint32_t *) = (void *)in->get(NULL, "vkEnumerateInstanceVersion");
	uint32_t api = 1u << 22;
	if (version) version(&api);
	if (!create || api < (1u << 22 | 1u << 12)) { free(in); return -9; /* VK_ERROR_INCOMPATIBLE_DRIVER */ }
	if (api > (1u << 22 | 3u << 12)) api = 1u << 22 | 3u << 12;
	static const char *const validation = "VK_LAYER_KHRONOS_validation";
	if (validate && !has_layer(in, validation)) { free(in); return -6; }
	const char *exts[4];
	uint32_t n = 0, flags = 0;
	if (instance_extension(in, NULL, "VK_KHR_portability_enumeration")) exts[n++] = "VK_KHR_portability_enumeration", flags = 1;
	if (validate) {
		exts[n++] = "VK_EXT_debug_utils";
		if (instance_extension(in, validation, "VK_EXT_validation_features")) exts[n++] = "VK_EXT_validation_features";
	}
	struct { head h; const char *app; uint32_t app_version; const char *engine; uint32_t engine_version, api; } app =
		{ {0, NULL}, "colt5", 1, "colt5", 1, api };
	static const int32_t enable[] = { 4 }; // synchronisation validation
	struct { head h; uint32_t on; const int32_t *enabled; uint32_t off; const int32_t *disabled; } features = { {1000247000, NULL}, 1, enable, 0, NULL };
	struct { head h; uint32_t flags, severity, kinds; void *call, *user; } messenger =
		{ {1000128004, &features}, 0, 0x1100 /* warning, error */, 0x2 /* validation; performance advice is no error */, (void *)on_message, in };
	struct { head h; uint32_t flags; const void *app; uint32_t layers; const char *const *layer; uint32_t exts; const char *const *ext; } info =
		{ {1, validate ? &messenger : NULL}, flags, &app, validate ? 1 : 0, &validation, n, exts };
	R r = create(&info, NULL, &in->handle);
	if (r != 0) { free(in); return r; }
	if (validate) {
		R (VKAPI *begin)(void *, const void *, const void *, uint64_t *) = (void *)in->get(in->handle, "vkCreateDebugUtilsMessengerEXT");
		messenger.h.next = NULL;
		r = begin ? begin(in->handle, &messenger, NULL, &in->messenger) : -7;
		if (r != 0) { c5_instance_free(in); return r; }
	}
	*out = in;
	return 0;
}

// ---- physical devices -----------------------------------------------------------------------------------------------

R c5_physical_devices(c5_instance *in, uint32_t *count, void **devices) {
	R (VKAPI *list)(void *, uint32_t *, void **) = (void *)in->get(in->handle, "vkEnumeratePhysicalDevices");
	return list ? list(in->handle, count, devices) : -3;
}

R c5_queue_families(c5_instance *in, void *physical, uint32_t *count, uint32_t *flags, uint32_t *timestamp_bits) {
	typedef struct { uint32_t flags, count, bits, granularity[3]; } family;
	void (VKAPI *get)(void *, uint32_t *, family *) = (void *)in->get(in->handle, "vkGetPhysicalDeviceQueueFamilyProperties");
	family f[C5_MAX_FAMILIES];
	if (!get) return -3;
	if (*count > C5_MAX_FAMILIES) *count = C5_MAX_FAMILIES;
	get(physical, count, f);
	for (uint32_t i = 0; i < *count; i++) flags[i] = f[i].flags, timestamp_bits[i] = f[i].bits;
	return 0;
}

void c5_chain(words *base, words *s, int32_t type) {
	s->type = type;
	s->next = base->next;
	base->next = s;
}

extension *c5_device_extensions(c5_instance *in, void *physical, uint32_t *n) {
	R (VKAPI *list)(void *, const char *, uint32_t *, extension *) = (void *)in->get(in->handle, "vkEnumerateDeviceExtensionProperties");
	*n = 0;
	if (!list || list(physical, NULL, n, NULL) != 0 || *n == 0) return NULL;
	extension *e = calloc(*n, sizeof *e);
	if (!e || list(physical, NULL, n, e) < 0) *n = 0;
	return e;
}

static void probe_features(c5_instance *in, void *physical, const extension *e, uint32_t n, int v13, c5_probe *p) {
	words base = {0}, f11 = {0}, f12 = {0}, size = {0}, coop = {0}, bf16 = {0}, coop2 = {0}, exec = {0};
	base.type = 1000059000;
	c5_chain(&base, &f11, 49);
	c5_chain(&base, &f12, 51);
	if (v13 || c5_listed(e, n, "VK_EXT_subgroup_size_control")) c5_chain(&base, &size, 1000225002);
	if (c5_listed(e, n, "VK_KHR_cooperative_matrix")) c5_chain(&base, &coop, 1000506000);
	if (c5_listed(e, n, "VK_KHR_shader_bfloat16")) c5_chain(&base, &bf16, 1000141000);
	if (c5_listed(e, n, "VK_NV_cooperative_matrix2")) c5_chain(&base, &coop2, 1000593000);
	if (c5_listed(e, n, "VK_KHR_pipeline_executable_properties")) c5_chain(&base, &exec, 1000269000);
	void (VKAPI *get)(void *, void *) = (void *)in->get(in->handle, "vkGetPhysicalDeviceFeatures2");
	if (!get) return;
	get(physical, &base);
	p->shader_float64 = base.w[39], p->shader_int64 = base.w[40], p->shader_int16 = base.w[41];
	p->storage16 = f11.w[0];
	p->storage8 = f12.w[2], p->shader_float16 = f12.w[7], p->shader_int8 = f12.w[8];
	p->subgroup_extended_types = f12.w[34], p->host_query_reset = f12.w[36], p->buffer_device_address = f12.w[38];
	p->memory_model = f12.w[41], p->memory_model_device = f12.w[42];
	p->size_control = size.w[0], p->full_subgroups = size.w[1];
	p->cooperative_matrix = coop.w[0];
	p->bfloat16 = bf16.w[0], p->bfloat16_cooperative = bf16.w[2];
	p->cooperative_matrix2_workgroup = coop2.w[0], p->cooperative_matrix2_flexible = coop2.w[1];
	p->cooperative_matrix2_reductions = coop2.w[2], p->cooperative_matrix2_conversions = coop2.w[3];
	p->cooperative_matrix2_tensor = coop2.w[5], p->cooperative_matrix2_block = coop2.w[6];
	p->executable_properties = exec.w[0];
	p->memory_budget = c5_listed(e, n, "VK_EXT_memory_budget");
	p->portability_subset = c5_listed(e, n, "VK_KHR_portability_subset");
}

static void probe_properties(c5_instance *in, void *physical, int size_control, c5_probe *p) {
	struct { int32_t type; void *next; uint64_t w[128]; } base = {1000059001, NULL, {0}};
	struct { int32_t type; void *next; int32_t id; char name[256], info[256]; uint32_t conformance; } driver = {1000196000, NULL, 0, "", "", 0};
	struct { int32_t type; void *next; uint8_t device[16], driver[16], luid[8]; uint32_t node, luid_valid, size, stages, operations, quad;
		int32_t point; uint32_t views, instances, fault; uint32_t sets; uint64_t allocation; } v11 = {50, &driver, {0}, {0}, {0}, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
	words size = {0};
	base.next = &v11;
	if (size_control) size.type = 1000225000, size.next = base.next, base.next = &size;
	void (VKAPI *get)(void *, void *) = (void *)in->get(in->handle, "vkGetPhysicalDeviceProperties2");
	if (!get) return;
	get(physical, &base);
	memcpy(p->device_uuid, v11.device, 16);
	p->subgroup_size = v11.size, p->subgroup_stages = v11.stages, p->subgroup_operations = v11.operations;
	p->max_allocation = v11.allocation;
	p->subgroup_min = p->subgroup_max = v11.size;
	if (size_control && size.w[0]) p->subgroup_min = size.w[0], p->subgroup_max = size.w[1];
	memcpy(p->driver_name, driver.name, 256);
	memcpy(p->driver_info, driver.info, 256);
}

static void probe_shapes(c5_instance *in, void *physical, c5_probe *p) {
	typedef struct { int32_t type; void *next; c5_shape s; } shape;
	R (VKAPI *list)(void *, uint32_t *, shape *) = (void *)in->get(in->handle, "vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR");
	shape s[C5_MAX_SHAPES];
	memset(s, 0, sizeof s);
	for (int i = 0; i < C5_MAX_SHAPES; i++) s[i].type = 1000506001;
	uint32_t n = C5_MAX_SHAPES;
	if (!list || list(physical, &n, s) < 0) return;
	p->shape_count = n;
	for (uint32_t i = 0; i < n; i++) p->shapes[i] = s[i].s;
}

R c5_probe_device(c5_instance *in, void *physical, uint32_t api, c5_probe *p) {
	memset(p, 0, sizeof *p);
	if (api < (1u << 22 | 2u << 12)) return 0; // Vulkan 1.0 and 1.1: every capability stays 0
	uint32_t n;
	extension *e = c5_device_extensions(in, physical, &n);
	int v13 = api >= (1u << 22 | 3u << 12);
	probe_features(in, physical, e, n, v13, p);
	probe_properties(in, physical, p->size_control, p);
	if (p->cooperative_matrix) probe_shapes(in, physical, p);
	free(e);
	return 0;
}

uint32_t c5_heap_budget(c5_instance *in, void *physical, uint32_t heap, uint64_t *budget, uint64_t *usage) {
	struct { int32_t type; void *next; uint64_t budget[16], usage[16]; } b = {1000237000, NULL, {0}, {0}};
	struct { int32_t type; void *next; uint64_t w[128]; } m = {1000059006, &b, {0}};
	void (VKAPI *get)(void *, void *) = (void *)in->get(in->handle, "vkGetPhysicalDeviceMemoryProperties2");
	if (!get || heap >= 16) return 0;
	get(physical, &m);
	*budget = b.budget[heap], *usage = b.usage[heap];
	return 1;
}
