// Part of loader.c: shader modules and pipelines. A shared device keeps pipelines, by the hash of what they are made of.

typedef struct { int32_t type; const void *next; uint32_t flags; size_t size; const uint32_t *code; } module_info;
typedef struct { uint32_t count; const void *entries; size_t size; const void *data; } specialization;
typedef struct { int32_t type; const void *next; uint32_t flags, stage; uint64_t module; const char *entry; const specialization *spec; } stage_info;
typedef struct { int32_t type; const void *next; uint32_t flags; stage_info stage; uint64_t layout, base; int32_t index; } pipeline_info;

// Shader modules and the hash of their code. Pipelines of the shared device by the hash of all that they are made of.
static struct { uint64_t module, hash; } modules[1 << 12];
static struct { uint64_t hash, pipeline; void *device; } pipelines[1 << 12];
static uint32_t module_count, pipeline_count;

static uint64_t hash(uint64_t h, const void *data, size_t n) {
	for (const uint8_t *p = data; n--; p++) h = (h ^ *p) * 0x100000001b3;
	return h;
}

static int32_t vkCreateShaderModule(void *d, const void *info, const void *a, uint64_t *h) {
	*h = garbage;
	FAIL(CreateShaderModule, 0);
	REAL(CreateShaderModule);
	if ((r = real(d, info, a, h)) != 0) return r;
	const module_info *i = info;
	add(MODULE, *h);
	pthread_mutex_lock(&mu);
	if (module_count == sizeof modules / sizeof *modules) die("too many shader modules");
	modules[module_count].module = *h, modules[module_count++].hash = hash(0xcbf29ce484222325, i->code, i->size);
	pthread_mutex_unlock(&mu);
	return 0;
}

static uint64_t take_module(uint64_t h, int forget) {
	uint64_t found = 0;
	pthread_mutex_lock(&mu);
	for (uint32_t i = 0; i < module_count; i++)
		if (modules[i].module == h) {
			found = modules[i].hash;
			if (forget) modules[i] = modules[--module_count];
			break;
		}
	pthread_mutex_unlock(&mu);
	return found;
}

static void vkDestroyShaderModule(void *d, uint64_t h, const void *a) {
	REAL(DestroyShaderModule);
	if (!removed(MODULE, h, "vkDestroyShaderModule")) return;
	take_module(h, 1);
	real(d, h, a);
}

static int32_t vkCreateComputePipelines(void *d, uint64_t cache, uint32_t n, const void *info, const void *a, uint64_t *h) {
	*h = garbage;
	FAIL(CreateComputePipelines, 0);
	REAL(CreateComputePipelines);
	if (n != 1) die("more than one pipeline at a time");
	if (c->memory) {
		static uint64_t last = garbage;
		add(PIPELINE, *h = ++last);
		return 0;
	}
	if (!c->share) {
		if ((r = real(d, cache, n, info, a, h)) == 0) add(PIPELINE, *h);
		return r;
	}
	const pipeline_info *i = info;
	uint64_t key = take_module(i->stage.module, 0);
	key = hash(key, &i->flags, 4);
	key = hash(key, &i->stage.flags, 4);
	key = hash(key, i->stage.entry, strlen(i->stage.entry));
	if (i->stage.next) key = hash(key, (const char *)i->stage.next + 16, 4); // the subgroup size
	if (i->stage.spec) {
		key = hash(key, i->stage.spec->entries, 16 * (size_t)i->stage.spec->count);
		key = hash(key, i->stage.spec->data, i->stage.spec->size);
	}
	uint64_t found = 0;
	pthread_mutex_lock(&mu);
	for (uint32_t k = 0; k < pipeline_count; k++)
		if (pipelines[k].hash == key && pipelines[k].device == d) found = pipelines[k].pipeline;
	pthread_mutex_unlock(&mu);
	r = 0;
	if (found) *h = found;
	else if ((r = real(d, cache, n, info, a, h)) == 0) {
		pthread_mutex_lock(&mu);
		if (pipeline_count == sizeof pipelines / sizeof *pipelines) die("too many pipelines");
		pipelines[pipeline_count].hash = key, pipelines[pipeline_count].device = d, pipelines[pipeline_count++].pipeline = *h;
		pthread_mutex_unlock(&mu);
	}
	if (r == 0) add(PIPELINE, *h);
	return r;
}

static void vkDestroyPipeline(void *d, uint64_t h, const void *a) {
	REAL(DestroyPipeline);
	if (removed(PIPELINE, h, "vkDestroyPipeline") && !c->share && !c->memory) real(d, h, a);
}
