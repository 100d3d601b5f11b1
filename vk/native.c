// The project's C is this file and native_instance.c. The Go binding frees the C copies of slice arguments while Vulkan may still read
// them, and knows nothing newer than Vulkan 1.1; so device creation, pipelines, command encoding and submission live here.
#include "native_private.h"
#include <stdlib.h>
#include <string.h>

// ---- device ---------------------------------------------------------------------------------------------------------

#define DEVICE_FUNCTIONS(X) \
	X(GetDeviceQueue, void, (void *, uint32_t, uint32_t, void **)) \
	X(CreateBuffer, R, (void *, const void *, const void *, uint64_t *)) \
	X(GetBufferMemoryRequirements, void, (void *, uint64_t, void *)) \
	X(AllocateMemory, R, (void *, const void *, const void *, uint64_t *)) \
	X(BindBufferMemory, R, (void *, uint64_t, uint64_t, uint64_t)) \
	X(GetBufferDeviceAddress, uint64_t, (void *, const void *)) \
	X(MapMemory, R, (void *, uint64_t, uint64_t, uint64_t, uint32_t, void **)) \
	X(FlushMappedMemoryRanges, R, (void *, uint32_t, const void *)) \
	X(InvalidateMappedMemoryRanges, R, (void *, uint32_t, const void *)) \
	X(CreatePipelineCache, R, (void *, const void *, const void *, uint64_t *)) \
	X(GetPipelineCacheData, R, (void *, uint64_t, size_t *, void *)) \
	X(CreateShaderModule, R, (void *, const void *, const void *, uint64_t *)) \
	X(DestroyShaderModule, void, (void *, uint64_t, const void *)) \
	X(CreatePipelineLayout, R, (void *, const void *, const void *, uint64_t *)) \
	X(DestroyPipelineLayout, void, (void *, uint64_t, const void *)) \
	X(CreateComputePipelines, R, (void *, uint64_t, uint32_t, const void *, const void *, uint64_t *)) \
	X(CreateCommandPool, R, (void *, const void *, const void *, uint64_t *)) \
	X(DestroyCommandPool, void, (void *, uint64_t, const void *)) \
	X(AllocateCommandBuffers, R, (void *, const void *, void **)) \
	X(ResetCommandPool, R, (void *, uint64_t, uint32_t)) \
	X(BeginCommandBuffer, R, (void *, const void *)) \
	X(EndCommandBuffer, R, (void *)) \
	X(CmdBindPipeline, void, (void *, int32_t, uint64_t)) \
	X(CmdPushConstants, void, (void *, uint64_t, uint32_t, uint32_t, uint32_t, const void *)) \
	X(CmdDispatch, void, (void *, uint32_t, uint32_t, uint32_t)) \
	X(CmdPipelineBarrier, void, (void *, uint32_t, uint32_t, uint32_t, uint32_t, const void *, uint32_t, const void *, uint32_t, const void *)) \
	X(CmdFillBuffer, void, (void *, uint64_t, uint64_t, uint64_t, uint32_t)) \
	X(CmdCopyBuffer, void, (void *, uint64_t, uint64_t, uint32_t, const void *)) \
	X(CmdWriteTimestamp, void, (void *, int32_t, uint64_t, uint32_t)) \
	X(CreateQueryPool, R, (void *, const void *, const void *, uint64_t *)) \
	X(ResetQueryPool, void, (void *, uint64_t, uint32_t, uint32_t)) \
	X(GetQueryPoolResults, R, (void *, uint64_t, uint32_t, uint32_t, size_t, void *, uint64_t, uint32_t)) \
	X(CreateFence, R, (void *, const void *, const void *, uint64_t *)) \
	X(GetFenceStatus, R, (void *, uint64_t)) \
	X(WaitForFences, R, (void *, uint32_t, const uint64_t *, uint32_t, uint64_t)) \
	X(ResetFences, R, (void *, uint32_t, const uint64_t *)) \
	X(QueueSubmit, R, (void *, uint32_t, const void *, uint64_t)) \
	X(DestroyDevice, void, (void *, const void *))

struct c5_device {
	void *handle, *queue;
	uint32_t family;
	R (VKAPI *GetPipelineExecutableProperties)(void *, const void *, uint32_t *, void *);
	R (VKAPI *GetPipelineExecutableStatistics)(void *, const void *, uint32_t *, void *);
#define X(name, result, args) result (VKAPI *name) args;
	DEVICE_FUNCTIONS(X)
#undef X
};

static R load_device(c5_instance *in, c5_device *d) {
	fn (VKAPI *get)(void *, const char *) = (void *)in->get(in->handle, "vkGetDeviceProcAddr");
	if (!get) return -3;
	int missing = 0;
#define X(name, result, args) d->name = (void *)get(d->handle, "vk" #name); missing |= !d->name;
	DEVICE_FUNCTIONS(X)
#undef X
	d->GetPipelineExecutableProperties = (void *)get(d->handle, "vkGetPipelineExecutablePropertiesKHR");
	d->GetPipelineExecutableStatistics = (void *)get(d->handle, "vkGetPipelineExecutableStatisticsKHR");
	return missing ? -3 : 0;
}

void *c5_device_handle(c5_device *d) { return d->handle; }

void c5_device_free(c5_device *d) {
	if (!d) return;
	if (d->handle && d->DestroyDevice) d->DestroyDevice(d->handle, NULL);
	free(d);
}

// c5_device_new makes a device with one compute queue and everything of the probe switched on.
R c5_device_new(c5_instance *in, void *physical, uint32_t family, const c5_probe *p, c5_device **out) {
	uint32_t n, count = 0;
	extension *e = c5_device_extensions(in, physical, &n);
	words base = {0}, f11 = {0}, f12 = {0}, size = {0}, coop = {0}, bf16 = {0}, coop2 = {0}, exec = {0};
	const char *exts[8];
	base.type = 1000059000;
	base.w[39] = p->shader_float64, base.w[40] = p->shader_int64, base.w[41] = p->shader_int16;
	c5_chain(&base, &f11, 49);
	f11.w[0] = p->storage16;
	c5_chain(&base, &f12, 51);
	f12.w[2] = p->storage8, f12.w[7] = p->shader_float16, f12.w[8] = p->shader_int8;
	f12.w[34] = p->subgroup_extended_types, f12.w[36] = p->host_query_reset, f12.w[38] = p->buffer_device_address;
	f12.w[41] = p->memory_model, f12.w[42] = p->memory_model_device;
	if (p->size_control) {
		c5_chain(&base, &size, 1000225002);
		size.w[0] = 1, size.w[1] = p->full_subgroups;
		if (c5_listed(e, n, "VK_EXT_subgroup_size_control")) exts[count++] = "VK_EXT_subgroup_size_control";
	}
	if (p->cooperative_matrix) c5_chain(&base, &coop, 1000506000), coop.w[0] = 1, exts[count++] = "VK_KHR_cooperative_matrix";
	if (p->bfloat16) c5_chain(&base, &bf16, 1000141000), bf16.w[0] = 1, bf16.w[2] = p->bfloat16_cooperative, exts[count++] = "VK_KHR_shader_bfloat16";
	if (p->cooperative_matrix2_flexible || p->cooperative_matrix2_workgroup) {
		c5_chain(&base, &coop2, 1000593000);
		coop2.w[0] = p->cooperative_matrix2_workgroup, coop2.w[1] = p->cooperative_matrix2_flexible;
		coop2.w[2] = p->cooperative_matrix2_reductions, coop2.w[3] = p->cooperative_matrix2_conversions;
		coop2.w[5] = p->cooperative_matrix2_tensor, coop2.w[6] = p->cooperative_matrix2_block;
		exts[count++] = "VK_NV_cooperative_matrix2";
	}
	if (p->executable_properties) c5_chain(&base, &exec, 1000269000), exec.w[0] = 1, exts[count++] = "VK_KHR_pipeline_executable_properties";
	if (p->portability_subset) exts[count++] = "VK_KHR_portability_subset";
	if (p->memory_budget) exts[count++] = "VK_EXT_memory_budget";
	free(e);
	float priority = 1;
	struct { head h; uint32_t flags, family, count; const float *priority; } queue = { {2, NULL}, 0, family, 1, &priority };
	struct { head h; uint32_t flags, queues; const void *queue; uint32_t layers; const void *layer; uint32_t exts; const char *const *ext; const void *features; }
		info = { {3, &base}, 0, 1, &queue, 0, NULL, count, exts, NULL };
	R (VKAPI *create)(void *, const void *, const void *, void **) = (void *)in->get(in->handle, "vkCreateDevice");
	c5_device *d = calloc(1, sizeof *d);
	if (!d || !create) { free(d); return -1; }
	R r = create(physical, &info, NULL, &d->handle);
	if (r == 0) r = load_device(in, d);
	if (r != 0) { c5_device_free(d); return r; }
	d->family = family;
	d->GetDeviceQueue(d->handle, family, 0, &d->queue);
	*out = d;
	return 0;
}

// ---- memory ---------------------------------------------------------------------------------------------------------

// All buffers have a device address; usage 0x20023: address, storage, transfer both ways.
R c5_buffer_new(c5_device *d, uint64_t size, uint32_t usage, uint64_t *buffer, uint64_t *need, uint64_t *align, uint32_t *types) {
	struct { head h; uint32_t flags; uint64_t size; uint32_t usage; int32_t sharing; uint32_t families; const uint32_t *family; } info =
		{ {12, NULL}, 0, size, usage, 0, 0, NULL };
	R r = d->CreateBuffer(d->handle, &info, NULL, buffer);
	if (r != 0) return r;
	struct { uint64_t size, align; uint32_t types; } m;
	d->GetBufferMemoryRequirements(d->handle, *buffer, &m);
	*need = m.size, *align = m.align, *types = m.types;
	return 0;
}

R c5_memory_new(c5_device *d, uint64_t size, uint32_t type, uint64_t *memory) {
	struct { head h; uint32_t flags, mask; } flags = { {1000060000, NULL}, 2 /* device address */, 0 };
	struct { head h; uint64_t size; uint32_t type; } info = { {5, &flags}, size, type };
	return d->AllocateMemory(d->handle, &info, NULL, memory);
}

R c5_bind(c5_device *d, uint64_t buffer, uint64_t memory, uint64_t *address) {
	R r = d->BindBufferMemory(d->handle, buffer, memory, 0);
	if (r != 0 || !address) return r;
	struct { head h; uint64_t buffer; } info = { {1000244001, NULL}, buffer };
	*address = d->GetBufferDeviceAddress(d->handle, &info);
	return *address ? 0 : -13;
}

R c5_map(c5_device *d, uint64_t memory, void **at) { return d->MapMemory(d->handle, memory, 0, ~0ull, 0, at); }

R c5_sync_mapped(c5_device *d, uint64_t memory, int to_device) {
	struct { head h; uint64_t memory, offset, size; } range = { {6, NULL}, memory, 0, ~0ull };
	return to_device ? d->FlushMappedMemoryRanges(d->handle, 1, &range) : d->InvalidateMappedMemoryRanges(d->handle, 1, &range);
}

// ---- pipelines ------------------------------------------------------------------------------------------------------

R c5_cache_new(c5_device *d, const void *data, size_t size, uint64_t *cache) {
	struct { head h; uint32_t flags; size_t size; const void *data; } info = { {17, NULL}, 0, size, data };
	return d->CreatePipelineCache(d->handle, &info, NULL, cache);
}

R c5_cache_data(c5_device *d, uint64_t cache, size_t *size, void *data) { return d->GetPipelineCacheData(d->handle, cache, size, data); }

R c5_pipeline_new(c5_device *d, uint64_t cache, const void *code, size_t size, const char *entry, uint32_t push,
	const uint32_t *spec_ids, const uint32_t *spec_values, uint32_t specs, uint32_t subgroup_size, uint32_t full,
	uint32_t capture, uint64_t *layout, uint64_t *pipeline) {
	struct { uint32_t id, offset; size_t size; } entries[64];
	if (specs > 64) return -3;
	for (uint32_t i = 0; i < specs; i++) entries[i].id = spec_ids[i], entries[i].offset = 4 * i, entries[i].size = 4;
	struct { uint32_t count; const void *entries; size_t size; const void *data; } spec = { specs, entries, 4 * (size_t)specs, spec_values };
	struct { uint32_t stages, offset, size; } range = { 0x20, 0, push };
	struct { head h; uint32_t flags, sets; const void *set; uint32_t ranges; const void *range; } lay = { {30, NULL}, 0, 0, NULL, push ? 1 : 0, &range };
	struct { head h; uint32_t flags; size_t size; const void *code; } mod = { {16, NULL}, 0, size, code };
	uint64_t module = 0;
	*layout = 0;
	R r = d->CreatePipelineLayout(d->handle, &lay, NULL, layout);
	if (r != 0) return r;
	r = d->CreateShaderModule(d->handle, &mod, NULL, &module);
	if (r == 0) {
		struct { head h; uint32_t size; } required = { {1000225001, NULL}, subgroup_size };
		typedef struct { head h; uint32_t flags, stage; uint64_t module; const char *entry; const void *spec; } stage;
		struct { head h; uint32_t flags; stage s; uint64_t layout, base; int32_t index; } info =
			{ {29, NULL}, capture ? 0x40 : 0, { {18, subgroup_size ? &required : NULL}, full ? 2 : 0, 0x20, module, entry, specs ? &spec : NULL }, *layout, 0, -1 };
		r = d->CreateComputePipelines(d->handle, cache, 1, &info, NULL, pipeline);
		d->DestroyShaderModule(d->handle, module, NULL);
	}
	if (r != 0) d->DestroyPipelineLayout(d->handle, *layout, NULL);
	return r;
}

// c5_pipeline_stats fills up to *count statistics of all executables of a pipeline made with capture on.
R c5_pipeline_stats(c5_device *d, uint64_t pipeline, uint32_t *count, c5_stat *stats) {
	if (!d->GetPipelineExecutableProperties || !d->GetPipelineExecutableStatistics) return -7;
	typedef struct { int32_t type; void *next; char name[256], text[256]; int32_t format; uint64_t value; } stat;
	typedef struct { int32_t type; void *next; uint32_t stages; char name[256], text[256]; uint32_t subgroup; } executable;
	struct { head h; uint64_t pipeline; } which = { {1000269001, NULL}, pipeline };
	uint32_t n = 0, room = *count;
	*count = 0;
	R r = d->GetPipelineExecutableProperties(d->handle, &which, &n, NULL);
	for (uint32_t i = 0; r == 0 && i < n; i++) {
		struct { head h; uint64_t pipeline; uint32_t index; } info = { {1000269003, NULL}, pipeline, i };
		uint32_t m = C5_MAX_EXECUTABLE_STATS;
		stat s[C5_MAX_EXECUTABLE_STATS];
		memset(s, 0, sizeof s);
		for (uint32_t j = 0; j < m; j++) s[j].type = 1000269004;
		r = d->GetPipelineExecutableStatistics(d->handle, &info, &m, s);
		if (r == 5) r = 0; // VK_INCOMPLETE
		for (uint32_t j = 0; r == 0 && j < m && *count < room; j++, ++*count) {
			c5_stat *o = &stats[*count];
			memcpy(o->name, s[j].name, 256);
			o->executable = i, o->format = (uint32_t)s[j].format, o->value = s[j].value;
		}
	}
	return r;
}

// ---- commands -------------------------------------------------------------------------------------------------------

R c5_commands_new(c5_device *d, uint64_t *pool, void **commands) {
	struct { head h; uint32_t flags, family; } make = { {39, NULL}, 0, d->family };
	R r = d->CreateCommandPool(d->handle, &make, NULL, pool);
	if (r != 0) return r;
	struct { head h; uint64_t pool; int32_t level; uint32_t count; } info = { {40, NULL}, *pool, 0, 1 };
	r = d->AllocateCommandBuffers(d->handle, &info, commands);
	if (r != 0) d->DestroyCommandPool(d->handle, *pool, NULL);
	return r;
}

R c5_fence_new(c5_device *d, uint64_t *fence) {
	struct { head h; uint32_t flags; } info = { {8, NULL}, 0 };
	return d->CreateFence(d->handle, &info, NULL, fence);
}

R c5_queries_new(c5_device *d, uint32_t count, uint64_t *pool) {
	struct { head h; uint32_t flags; int32_t type; uint32_t count, statistics; } info = { {11, NULL}, 0, 2 /* timestamp */, count, 0 };
	return d->CreateQueryPool(d->handle, &info, NULL, pool);
}

R c5_queries_read(c5_device *d, uint64_t pool, uint32_t count, uint64_t *ticks) {
	return d->GetQueryPoolResults(d->handle, pool, 0, count, 8 * (size_t)count, ticks, 8, 3 /* 64 bit, wait */);
}

// barrier orders kinds of work before it and after it, and lets those after it see what those before it wrote.
static void barrier(c5_device *d, void *cmd, uint32_t before, uint32_t after) {
	enum { READ = 0x20, WRITE = 0x40, TREAD = 0x800, TWRITE = 0x1000, HREAD = 0x2000 };     // accesses
	enum { COMPUTE = 0x800, TRANSFER = 0x1000, HOST = 0x4000 };                             // stages
	struct { head h; uint32_t src, dst; } m = { {46, NULL}, 0, 0 };
	uint32_t src = 0, dst = 0;
	if (before & C5_COMPUTE) src |= COMPUTE, m.src |= WRITE;
	if (before & C5_TRANSFER) src |= TRANSFER, m.src |= TWRITE;
	if (after & C5_COMPUTE) dst |= COMPUTE, m.dst |= READ | WRITE;
	if (after & C5_TRANSFER) dst |= TRANSFER, m.dst |= TREAD | TWRITE;
	if (after & C5_HOST) dst |= HOST, m.dst |= HREAD;
	d->CmdPipelineBarrier(cmd, src, dst, 0, 1, &m, 0, NULL, 0, NULL);
}

R c5_encode(c5_device *d, uint64_t pool, void *commands, const void *ops, size_t bytes) {
	R r = d->ResetCommandPool(d->handle, pool, 0);
	struct { head h; uint32_t flags; const void *inheritance; } info = { {42, NULL}, 0, NULL };
	if (r == 0) r = d->BeginCommandBuffer(commands, &info);
	if (r != 0) return r;
	uint64_t bound = 0;
	for (const char *at = ops, *end = at + bytes; at < end; at += ((const c5_op *)at)->bytes) {
		switch (((const c5_op *)at)->op) {
		case C5_OP_DISPATCH: {
			const c5_op_dispatch *o = (const void *)at;
			if (o->pipeline != bound) d->CmdBindPipeline(commands, 1, bound = o->pipeline);
			if (o->push) d->CmdPushConstants(commands, o->layout, 0x20, 0, o->push, o + 1);
			d->CmdDispatch(commands, o->groups[0], o->groups[1], o->groups[2]);
			break;
		}
		case C5_OP_BARRIER: {
			const c5_op_barrier *o = (const void *)at;
			barrier(d, commands, o->before, o->after);
			break;
		}
		case C5_OP_FILL: {
			const c5_op_fill *o = (const void *)at;
			d->CmdFillBuffer(commands, o->buffer, o->offset, o->size, o->value);
			break;
		}
		case C5_OP_COPY: {
			const c5_op_copy *o = (const void *)at;
			struct { uint64_t from, to, size; } region = { o->from_offset, o->to_offset, o->size };
			d->CmdCopyBuffer(commands, o->from, o->to, 1, &region);
			break;
		}
		case C5_OP_TIMESTAMP: {
			const c5_op_timestamp *o = (const void *)at;
			d->CmdWriteTimestamp(commands, 0x2000 /* bottom of pipe */, o->pool, o->query);
			break;
		}
		default:
			d->EndCommandBuffer(commands);
			return -3;
		}
	}
	return d->EndCommandBuffer(commands);
}

// ---- submission and waiting -------------------------------------------------------------------------------------------

// c5_submit starts command buffers, each in a submission of its own, the last one with the fence. Without command buffers it submits the
// fence alone. Queries are reset first, if there are any. *started is the number of successful submissions.
R c5_submit(c5_device *d, void *const *commands, uint32_t count, uint64_t fence, uint64_t pool, uint32_t queries, uint32_t *started) {
	if (queries) d->ResetQueryPool(d->handle, pool, 0, queries);
	if (count == 0) return d->QueueSubmit(d->queue, 0, NULL, fence);
	R r = 0;
	for (uint32_t i = 0; i < count && r == 0; i++) {
		struct { head h; uint32_t waits; const void *wait, *stages; uint32_t commands; void *const *command; uint32_t signals; const void *signal; } info =
			{ {4, NULL}, 0, NULL, NULL, 1, commands + i, 0, NULL };
		r = d->QueueSubmit(d->queue, 1, &info, i + 1 == count ? fence : 0);
		if (r == 0) ++*started;
	}
	return r;
}

// c5_fence_sleep waits for a fence in the driver. VK_TIMEOUT: it was not signalled in time.
R c5_fence_sleep(c5_device *d, uint64_t fence, uint64_t nanoseconds) { return d->WaitForFences(d->handle, 1, &fence, 1, nanoseconds); }

// c5_fence_poll queries the status of a fence up to times times. VK_NOT_READY: it is not.
R c5_fence_poll(c5_device *d, uint64_t fence, uint32_t times) {
	const R not_ready = 1;
	R r = not_ready;
	while (times-- && r == not_ready) r = d->GetFenceStatus(d->handle, fence);
	return r;
}

R c5_fence_reset(c5_device *d, uint64_t fence) { return d->ResetFences(d->handle, 1, &fence); }
