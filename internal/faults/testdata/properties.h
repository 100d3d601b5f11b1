// Part of loader.c: what physical devices report, and which of it a test hides.

typedef struct chain { int32_t type; struct chain *next; } chain;

static int32_t vkEnumeratePhysicalDevices(void *i, uint32_t *n, void **p) {
	FAIL(EnumeratePhysicalDevices, 0);
	REAL(EnumeratePhysicalDevices);
	r = real(i, n, p);
	if (c->hide == HIDE_DEVICES) *n = 0;
	return r;
}

typedef struct { char name[256]; uint32_t version; } extension;
static const char budget_extension[] = "VK_EXT_memory_budget";

static int32_t vkEnumerateDeviceExtensionProperties(void *p, const char *l, uint32_t *n, extension *e) {
	FAIL(EnumerateDeviceExtensionProperties, 0);
	REAL(EnumerateDeviceExtensionProperties);
	r = real(p, l, n, e);
	if (r != 0 || l || !c->budget) return r;
	if (!e) { // one more than the driver has, where it has not this one
		++*n;
		return 0;
	}
	for (uint32_t k = 0; k < *n; k++)
		if (strcmp(e[k].name, budget_extension) == 0) return 0;
	memset(&e[*n], 0, sizeof *e);
	strcpy(e[(*n)++].name, budget_extension);
	return 0;
}

// VkPhysicalDeviceProperties: apiVersion is word 0, deviceType word 4.
static void vkGetPhysicalDeviceProperties(void *p, uint32_t *w) {
	REAL(GetPhysicalDeviceProperties);
	real(p, w);
	if (c->hide == HIDE_VULKAN12) w[0] = 1u << 22 | 1u << 12;
	if (c->gpu) w[4] = 2;
}

// VkPhysicalDeviceMemoryProperties: a count, then pairs of flags and heap.
static void vkGetPhysicalDeviceMemoryProperties(void *p, uint32_t *w) {
	REAL(GetPhysicalDeviceMemoryProperties);
	real(p, w);
	for (uint32_t i = 0; c->hide == HIDE_HOST_VISIBLE && i < w[0]; i++) w[1 + 2 * i] &= ~0xeu;
	uint64_t *heaps = (uint64_t *)(w + 66); // pairs of size and flags
	for (uint32_t i = 0; c->memory && i < w[65]; i++) heaps[2 * i] = c->memory;
}

// VkQueueFamilyProperties has 6 words; the flags are the first.
static void vkGetPhysicalDeviceQueueFamilyProperties(void *p, uint32_t *n, uint32_t *w) {
	REAL(GetPhysicalDeviceQueueFamilyProperties);
	real(p, n, w);
	for (uint32_t i = 0; w && c->hide == HIDE_COMPUTE && i < *n; i++) w[6 * i] &= ~2u;
}

static void vkGetPhysicalDeviceFeatures2(void *p, chain *f) {
	REAL(GetPhysicalDeviceFeatures2);
	real(p, f);
	for (; f; f = f->next) {
		uint32_t *w = (uint32_t *)(f + 1);
		if (f->type == 51 && c->hide == HIDE_ADDRESS) w[38] = 0;     // bufferDeviceAddress of VkPhysicalDeviceVulkan12Features
		if (f->type == 51 && c->hide == HIDE_QUERY_RESET) w[36] = 0; // hostQueryReset
	}
}

// VkPhysicalDeviceVulkan11Properties
typedef struct {
	chain h;
	uint8_t device[16], driver[16], luid[8];
	uint32_t node, luid_valid, size, stages, operations, quad;
	int32_t point;
	uint32_t views, instances, fault, sets;
	uint64_t allocation;
} properties11;

static void vkGetPhysicalDeviceProperties2(void *p, chain *f) {
	REAL(GetPhysicalDeviceProperties2);
	real(p, f);
	for (; f; f = f->next)
		if (f->type == 50) {
			properties11 *v = (properties11 *)f;
			if (c->hide == HIDE_SUBGROUPS) v->operations &= ~4u; // arithmetic
		} else if (f->type == 1000413001 && c->most) { // VkPhysicalDeviceMaintenance4Properties
			*(uint64_t *)(f + 1) = c->most;
		}
}

static void vkGetPhysicalDeviceMemoryProperties2(void *p, chain *f) {
	REAL(GetPhysicalDeviceMemoryProperties2);
	real(p, f);
	for (; f; f = f->next)
		if (f->type == 1000237000 && c->budget) { // VkPhysicalDeviceMemoryBudgetPropertiesEXT
			uint64_t *w = (uint64_t *)(f + 1);
			for (int i = 0; i < 16; i++) w[i] = c->budget, w[16 + i] = c->usage;
		}
}
