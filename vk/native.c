// Device-level Vulkan calls; native_instance.c holds the instance-level ones. They are in C because the Go binding
// frees its C copies of slice arguments while Vulkan may still read them, and because it ends at Vulkan 1.1.
#include "native_private.h"
#include <stdlib.h>
#include <string.h>

// ---- device ---------------------------------------------------------------------------------------------------------

#define DEVICE_FUNCTIONS(X) \
	X(GetDeviceQueue, void, (void *, uint32_t, uint32_t, void **)) \
	X(CreateBuffer, VkResult, (void *, const void *, const void *, uint64_t *)) \
	X(GetBufferMemoryRequirements, void, (void *, uint64_t, void *)) \
	X(AllocateMemory, VkResult, (void *, const void *, const void *, uint64_t *)) \
	X(BindBufferMemory, VkResult, (void *, uint64_t, uint64_t, uint64_t)) \
	X(GetBufferDeviceAddress, uint64_t, (void *, const void *)) \
	X(MapMemory, VkResult, (void *, uint64_t, uint64_t, uint64_t, uint32_t, void **)) \
	X(FlushMappedMemoryRanges, VkResult, (void *, uint32_t, const void *)) \
	X(InvalidateMappedMemoryRanges, VkResult, (void *, uint32_t, const void *)) \
	X(CreatePipelineCache, VkResult, (void *, const void *, const void *, uint64_t *)) \
	X(GetPipelineCacheData, VkResult, (void *, uint64_t, size_t *, void *)) \
	X(CreateShaderModule, VkResult, (void *, const void *, const void *, uint64_t *)) \
	X(DestroyShaderModule, void, (void *, uint64_t, const void *)) \
	X(CreatePipelineLayout, VkResult, (void *, const void *, const void *, uint64_t *)) \
	X(DestroyPipelineLayout, void, (void *, uint64_t, const void *)) \
	X(CreateComputePipelines, VkResult, (void *, uint64_t, uint32_t, const void *, const void *, uint64_t *)) \
	X(CreateCommandPool, VkResult, (void *, const void *, const void *, uint64_t *)) \
	X(DestroyCommandPool, void, (void *, uint64_t, const void *)) \
	X(AllocateCommandBuffers, VkResult, (void *, const void *, void **)) \
	X(ResetCommandPool, VkResult, (void *, uint64_t, uint32_t)) \
	X(BeginCommandBuffer, VkResult, (void *, const void *)) \
	X(EndCommandBuffer, VkResult, (void *)) \
	X(CmdBindPipeline, void, (void *, int32_t, uint64_t)) \
	X(CmdPushConstants, void, (void *, uint64_t, uint32_t, uint32_t, uint32_t, const void *)) \
	X(CmdDispatch, void, (void *, uint32_t, uint32_t, uint32_t)) \
	X(CmdPipelineBarrier, void, (void *, uint32_t, uint32_t, uint32_t, uint32_t, const void *, uint32_t, const void *, uint32_t, const void *)) \
	X(CmdFillBuffer, void, (void *, uint64_t, uint64_t, uint64_t, uint32_t)) \
	X(CmdCopyBuffer, void, (void *, uint64_t, uint64_t, uint32_t, const void *)) \
	X(CmdWriteTimestamp, void, (void *, int32_t, uint64_t, uint32_t)) \
	X(CreateQueryPool, VkResult, (void *, const void *, const void *, uint64_t *)) \
	X(ResetQueryPool, void, (void *, uint64_t, uint32_t, uint32_t)) \
	X(GetQueryPoolResults, VkResult, (void *, uint64_t, uint32_t, uint32_t, size_t, void *, uint64_t, uint32_t)) \
	X(CreateFence, VkResult, (void *, const void *, const void *, uint64_t *)) \
	X(GetFenceStatus, VkResult, (void *, uint64_t)) \
	X(WaitForFences, VkResult, (void *, uint32_t, const uint64_t *, uint32_t, uint64_t)) \
	X(ResetFences, VkResult, (void *, uint32_t, const uint64_t *)) \
	X(QueueSubmit, VkResult, (void *, uint32_t, const void *, uint64_t)) \
	X(DestroyDevice, void, (void *, const void *))

struct c5_device {
	void *handle, *queue;
	uint32_t family;
	VkResult (VKAPI *GetPipelineExecutableProperties)(void *, const void *, uint32_t *, void *);
	VkResult (VKAPI *GetPipelineExecutableStatistics)(void *, const void *, uint32_t *, void *);
#define X(name, result, args) result (VKAPI *name) args;
	DEVICE_FUNCTIONS(X)
#undef X
};

static VkResult load_device(c5_instance *in, c5_device *d) {
	fn (VKAPI *get)(void *, const char *) = (void *)in->get(in->handle, "vkGetDeviceProcAddr");
	if (!get) return VK_ERROR_INITIALIZATION_FAILED;
	int missing = 0;
#define X(name, result, args) d->name = (void *)get(d->handle, "vk" #name); missing |= !d->name;
	DEVICE_FUNCTIONS(X)
#undef X
	d->GetPipelineExecutableProperties = (void *)get(d->handle, "vkGetPipelineExecutablePropertiesKHR");
	d->GetPipelineExecutableStatistics = (void *)get(d->handle, "vkGetPipelineExecutableStatisticsKHR");
	return missing ? VK_ERROR_INITIALIZATION_FAILED : 0;
}

void *c5_device_handle(c5_device *d) { return d->handle; }

void c5_device_free(c5_device *d) {
	if (!d) return;
	if (d->handle && d->DestroyDevice) d->DestroyDevice(d->handle, NULL);
	free(d);
}

// c5_device_new creates a device with one compute queue and all features of the probe.
VkResult c5_device_new(c5_instance *in, void *physical, uint32_t family, const c5_probe *p, c5_device **out, const char **call) {
	uint32_t n, count = 0;
	extension *e;
	VkResult r = c5_device_extensions(in, physical, &e, &n, call);
	if (r != 0) return r;
	chained base = {0}, f11 = {0}, f12 = {0}, size = {0}, coop = {0}, bf16 = {0}, coop2 = {0}, exec = {0};
	const char *exts[8];
	base.type = STYPE_PHYSICAL_DEVICE_FEATURES_2;
	base.w[FEATURE_SHADER_FLOAT64] = p->shader_float64;
	base.w[FEATURE_SHADER_INT64] = p->shader_int64;
	base.w[FEATURE_SHADER_INT16] = p->shader_int16;
	c5_chain(&base, &f11, STYPE_PHYSICAL_DEVICE_VULKAN_1_1_FEATURES);
	f11.w[FEATURE11_STORAGE_BUFFER_16BIT] = p->storage16;
	c5_chain(&base, &f12, STYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES);
	f12.w[FEATURE12_STORAGE_BUFFER_8BIT] = p->storage8;
	f12.w[FEATURE12_SHADER_FLOAT16] = p->shader_float16;
	f12.w[FEATURE12_SHADER_INT8] = p->shader_int8;
	f12.w[FEATURE12_SUBGROUP_EXTENDED_TYPES] = p->subgroup_extended_types;
	f12.w[FEATURE12_HOST_QUERY_RESET] = p->host_query_reset;
	f12.w[FEATURE12_BUFFER_DEVICE_ADDRESS] = p->buffer_device_address;
	f12.w[FEATURE12_MEMORY_MODEL] = p->memory_model, f12.w[FEATURE12_MEMORY_MODEL_DEVICE_SCOPE] = p->memory_model_device;
	if (p->size_control) {
		c5_chain(&base, &size, STYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_FEATURES);
		size.w[FEATURE_SUBGROUP_SIZE_CONTROL] = 1, size.w[FEATURE_COMPUTE_FULL_SUBGROUPS] = p->full_subgroups;
		if (c5_listed(e, n, "VK_EXT_subgroup_size_control")) exts[count++] = "VK_EXT_subgroup_size_control";
	}
	if (p->cooperative_matrix) {
		c5_chain(&base, &coop, STYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_FEATURES_KHR);
		coop.w[FEATURE_COOPERATIVE_MATRIX] = 1;
		exts[count++] = "VK_KHR_cooperative_matrix";
	}
	if (p->bfloat16) {
		c5_chain(&base, &bf16, STYPE_PHYSICAL_DEVICE_SHADER_BFLOAT16_FEATURES_KHR);
		bf16.w[FEATURE_BFLOAT16_TYPE] = 1, bf16.w[FEATURE_BFLOAT16_COOPERATIVE_MATRIX] = p->bfloat16_cooperative;
		exts[count++] = "VK_KHR_shader_bfloat16";
	}
	if (p->cooperative_matrix2_flexible || p->cooperative_matrix2_workgroup) {
		c5_chain(&base, &coop2, STYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_2_FEATURES_NV);
		coop2.w[FEATURE_MATRIX2_WORKGROUP_SCOPE] = p->cooperative_matrix2_workgroup;
		coop2.w[FEATURE_MATRIX2_FLEXIBLE_DIMENSIONS] = p->cooperative_matrix2_flexible;
		coop2.w[FEATURE_MATRIX2_REDUCTIONS] = p->cooperative_matrix2_reductions;
		coop2.w[FEATURE_MATRIX2_CONVERSIONS] = p->cooperative_matrix2_conversions;
		coop2.w[FEATURE_MATRIX2_TENSOR_ADDRESSING] = p->cooperative_matrix2_tensor;
		coop2.w[FEATURE_MATRIX2_BLOCK_LOADS] = p->cooperative_matrix2_block;
		exts[count++] = "VK_NV_cooperative_matrix2";
	}
	if (p->executable_properties) {
		c5_chain(&base, &exec, STYPE_PHYSICAL_DEVICE_PIPELINE_EXECUTABLE_PROPERTIES_FEATURES_KHR);
		exec.w[FEATURE_PIPELINE_EXECUTABLE_INFO] = 1;
		exts[count++] = "VK_KHR_pipeline_executable_properties";
	}
	if (p->portability_subset) exts[count++] = "VK_KHR_portability_subset";
	if (p->memory_budget) exts[count++] = "VK_EXT_memory_budget";
	free(e);
	float priority = 1;
	struct { head h; uint32_t flags, family, count; const float *priority; } queue =
		{ {STYPE_DEVICE_QUEUE_CREATE_INFO, NULL}, 0, family, 1, &priority };
	struct { head h; uint32_t flags, queues; const void *queue; uint32_t layers; const void *layer; uint32_t exts;
		const char *const *ext; const void *features; } info =
		{ {STYPE_DEVICE_CREATE_INFO, &base}, 0, 1, &queue, 0, NULL, count, exts, NULL };
	VkResult (VKAPI *create)(void *, const void *, const void *, void **) = (void *)in->get(in->handle, *call = "vkCreateDevice");
	c5_device *d = calloc(1, sizeof *d);
	if (!d || !create) { free(d); return VK_ERROR_OUT_OF_HOST_MEMORY; }
	if ((r = create(physical, &info, NULL, &d->handle)) != 0) {
		free(d);
		return r;
	}
	*call = "vkGetDeviceProcAddr";
	if ((r = load_device(in, d)) != 0) {
		c5_device_free(d);
		return r;
	}
	d->family = family;
	d->GetDeviceQueue(d->handle, family, 0, &d->queue);
	*out = d;
	return 0;
}

// ---- memory ---------------------------------------------------------------------------------------------------------

// c5_buffer_new creates a buffer and returns its memory requirements. usage: VkBufferUsageFlags.
VkResult c5_buffer_new(c5_device *d, uint64_t size, uint32_t usage, uint64_t *buffer, uint64_t *need, uint64_t *align, uint32_t *types) {
	struct { head h; uint32_t flags; uint64_t size; uint32_t usage; int32_t sharing; uint32_t families; const uint32_t *family; } info =
		{ {STYPE_BUFFER_CREATE_INFO, NULL}, 0, size, usage, 0, 0, NULL };
	VkResult r = d->CreateBuffer(d->handle, &info, NULL, buffer);
	if (r != 0) *buffer = 0; // undefined after an error; so in all functions here
	if (r != 0) return r;
	struct { uint64_t size, align; uint32_t types; } m;
	d->GetBufferMemoryRequirements(d->handle, *buffer, &m);
	*need = m.size, *align = m.align, *types = m.types;
	return 0;
}

VkResult c5_memory_new(c5_device *d, uint64_t size, uint32_t type, uint64_t *memory) {
	struct { head h; uint32_t flags, mask; } flags = { {STYPE_MEMORY_ALLOCATE_FLAGS_INFO, NULL}, 2 /* device address */, 0 };
	struct { head h; uint64_t size; uint32_t type; } info = { {STYPE_MEMORY_ALLOCATE_INFO, &flags}, size, type };
	VkResult r = d->AllocateMemory(d->handle, &info, NULL, memory);
	if (r != 0) *memory = 0;
	return r;
}

// c5_bind binds a buffer to its memory and returns its device address, unless address is NULL.
VkResult c5_bind(c5_device *d, uint64_t buffer, uint64_t memory, uint64_t *address, const char **call) {
	*call = "vkBindBufferMemory";
	VkResult r = d->BindBufferMemory(d->handle, buffer, memory, 0);
	if (r != 0 || !address) return r;
	struct { head h; uint64_t buffer; } info = { {STYPE_BUFFER_DEVICE_ADDRESS_INFO, NULL}, buffer };
	*call = "vkGetBufferDeviceAddress";
	*address = d->GetBufferDeviceAddress(d->handle, &info);
	return *address ? 0 : VK_ERROR_UNKNOWN;
}

// c5_map maps all of a memory object.
VkResult c5_map(c5_device *d, uint64_t memory, void **at) { return d->MapMemory(d->handle, memory, 0, ~0ull, 0, at); }

// c5_sync_mapped makes host writes visible to the device, or device writes visible to the host, for memory that is not
// coherent.
VkResult c5_sync_mapped(c5_device *d, uint64_t memory, int to_device) {
	struct { head h; uint64_t memory, offset, size; } range = { {STYPE_MAPPED_MEMORY_RANGE, NULL}, memory, 0, ~0ull };
	return to_device ? d->FlushMappedMemoryRanges(d->handle, 1, &range) : d->InvalidateMappedMemoryRanges(d->handle, 1, &range);
}

// ---- pipelines ------------------------------------------------------------------------------------------------------

VkResult c5_cache_new(c5_device *d, const void *data, size_t size, uint64_t *cache) {
	struct { head h; uint32_t flags; size_t size; const void *data; } info = { {STYPE_PIPELINE_CACHE_CREATE_INFO, NULL}, 0, size, data };
	VkResult r = d->CreatePipelineCache(d->handle, &info, NULL, cache);
	if (r != 0) *cache = 0;
	return r;
}

VkResult c5_cache_data(c5_device *d, uint64_t cache, size_t *size, void *data) { return d->GetPipelineCacheData(d->handle, cache, size, data); }

// c5_pipeline_new creates a compute pipeline. subgroup_size 0: selected by the driver.
VkResult c5_pipeline_new(c5_device *d, uint64_t cache, const void *code, size_t size, const char *entry, uint32_t push,
	const uint32_t *spec_ids, const uint32_t *spec_values, uint32_t specs, uint32_t subgroup_size, uint32_t full_subgroups,
	uint32_t statistics, uint64_t *layout, uint64_t *pipeline, const char **call) {
	struct { uint32_t id, offset; size_t size; } entries[64];
	*call = "vkCreatePipelineLayout";
	if (specs > 64) return VK_ERROR_INITIALIZATION_FAILED;
	for (uint32_t i = 0; i < specs; i++) entries[i].id = spec_ids[i], entries[i].offset = 4 * i, entries[i].size = 4;
	struct { uint32_t count; const void *entries; size_t size; const void *data; } spec = { specs, entries, 4 * (size_t)specs, spec_values };
	struct { uint32_t stages, offset, size; } range = { 0x20, 0, push };
	struct { head h; uint32_t flags, sets; const void *set; uint32_t ranges; const void *range; } lay =
		{ {STYPE_PIPELINE_LAYOUT_CREATE_INFO, NULL}, 0, 0, NULL, push ? 1 : 0, &range };
	struct { head h; uint32_t flags; size_t size; const void *code; } mod = { {STYPE_SHADER_MODULE_CREATE_INFO, NULL}, 0, size, code };
	uint64_t module = 0;
	VkResult r = d->CreatePipelineLayout(d->handle, &lay, NULL, layout);
	if (r != 0) return r;
	*call = "vkCreateShaderModule";
	r = d->CreateShaderModule(d->handle, &mod, NULL, &module);
	if (r == 0) {
		*call = "vkCreateComputePipelines";
		struct { head h; uint32_t size; } required =
			{ {STYPE_PIPELINE_SHADER_STAGE_REQUIRED_SUBGROUP_SIZE_CREATE_INFO, NULL}, subgroup_size };
		typedef struct { head h; uint32_t flags, stage; uint64_t module; const char *entry; const void *spec; } stage;
		struct { head h; uint32_t flags; stage s; uint64_t layout, base; int32_t index; } info =
			{ {STYPE_COMPUTE_PIPELINE_CREATE_INFO, NULL}, statistics ? 0x40 /* capture statistics */ : 0,
				{ {STYPE_PIPELINE_SHADER_STAGE_CREATE_INFO, subgroup_size ? &required : NULL},
					full_subgroups ? 2 /* require full subgroups */ : 0, 0x20 /* compute stage */, module, entry, specs ? &spec : NULL },
				*layout, 0, -1 };
		r = d->CreateComputePipelines(d->handle, cache, 1, &info, NULL, pipeline);
		d->DestroyShaderModule(d->handle, module, NULL);
	}
	if (r != 0) d->DestroyPipelineLayout(d->handle, *layout, NULL);
	return r;
}

// c5_pipeline_stats returns up to *count statistics of all executables of a pipeline that was created with capture, and
// their subgroup sizes.
VkResult c5_pipeline_stats(c5_device *d, uint64_t pipeline, uint32_t *count, c5_stat *stats, const char **call) {
	*call = "vkGetPipelineExecutablePropertiesKHR";
	if (!d->GetPipelineExecutableProperties || !d->GetPipelineExecutableStatistics) return VK_ERROR_EXTENSION_NOT_PRESENT;
	typedef struct { int32_t type; void *next; char name[256], text[256]; int32_t format; uint64_t value; } stat;
	typedef struct { int32_t type; void *next; uint32_t stages; char name[256], text[256]; uint32_t subgroup; } executable;
	struct { head h; uint64_t pipeline; } which = { {STYPE_PIPELINE_INFO_KHR, NULL}, pipeline };
	uint32_t n = 0, limit = *count;
	*count = 0;
	VkResult r = d->GetPipelineExecutableProperties(d->handle, &which, &n, NULL);
	if (r != 0) return r;
	if (n > C5_MAX_EXECUTABLES) n = C5_MAX_EXECUTABLES;
	executable properties[C5_MAX_EXECUTABLES];
	memset(properties, 0, sizeof properties);
	for (uint32_t i = 0; i < n; i++) properties[i].type = STYPE_PIPELINE_EXECUTABLE_PROPERTIES_KHR;
	r = d->GetPipelineExecutableProperties(d->handle, &which, &n, properties);
	if (r == VK_INCOMPLETE) r = 0;
	for (uint32_t i = 0; r == 0 && i < n; i++) {
		if (*count < limit && properties[i].subgroup)
			stats[(*count)++] = (c5_stat){ "Subgroup size", i, 2, properties[i].subgroup }; // 2: uint64
		struct { head h; uint64_t pipeline; uint32_t index; } info = { {STYPE_PIPELINE_EXECUTABLE_INFO_KHR, NULL}, pipeline, i };
		uint32_t m = C5_MAX_EXECUTABLE_STATS;
		stat s[C5_MAX_EXECUTABLE_STATS];
		memset(s, 0, sizeof s);
		for (uint32_t j = 0; j < m; j++) s[j].type = STYPE_PIPELINE_EXECUTABLE_STATISTIC_KHR;
		*call = "vkGetPipelineExecutableStatisticsKHR";
		r = d->GetPipelineExecutableStatistics(d->handle, &info, &m, s);
		if (r == VK_INCOMPLETE) r = 0;
		for (uint32_t j = 0; r == 0 && j < m && *count < limit; j++, ++*count) {
			c5_stat *o = &stats[*count];
			memcpy(o->name, s[j].name, 256);
			o->executable = i, o->format = (uint32_t)s[j].format, o->value = s[j].value;
		}
	}
	return r;
}

// ---- commands -------------------------------------------------------------------------------------------------------

// c5_commands_new creates a command pool with one command buffer.
VkResult c5_commands_new(c5_device *d, uint64_t *pool, void **commands, const char **call) {
	*call = "vkCreateCommandPool";
	struct { head h; uint32_t flags, family; } make = { {STYPE_COMMAND_POOL_CREATE_INFO, NULL}, 0, d->family };
	VkResult r = d->CreateCommandPool(d->handle, &make, NULL, pool);
	if (r != 0) return r;
	struct { head h; uint64_t pool; int32_t level; uint32_t count; } info = { {STYPE_COMMAND_BUFFER_ALLOCATE_INFO, NULL}, *pool, 0, 1 };
	*call = "vkAllocateCommandBuffers";
	r = d->AllocateCommandBuffers(d->handle, &info, commands);
	if (r != 0) d->DestroyCommandPool(d->handle, *pool, NULL);
	return r;
}

VkResult c5_fence_new(c5_device *d, uint64_t *fence) {
	struct { head h; uint32_t flags; } info = { {STYPE_FENCE_CREATE_INFO, NULL}, 0 };
	VkResult r = d->CreateFence(d->handle, &info, NULL, fence);
	if (r != 0) *fence = 0;
	return r;
}

VkResult c5_timestamp_pool_new(c5_device *d, uint32_t count, uint64_t *pool) {
	struct { head h; uint32_t flags; int32_t type; uint32_t count, statistics; } info =
		{ {STYPE_QUERY_POOL_CREATE_INFO, NULL}, 0, 2 /* timestamp */, count, 0 };
	VkResult r = d->CreateQueryPool(d->handle, &info, NULL, pool);
	if (r != 0) *pool = 0;
	return r;
}

VkResult c5_queries_read(c5_device *d, uint64_t pool, uint32_t count, uint64_t *ticks) {
	return d->GetQueryPoolResults(d->handle, pool, 0, count, 8 * (size_t)count, ticks, 8, 3 /* 64 bit, wait */);
}

// barrier records an execution and memory barrier between kinds of work.
static void barrier(c5_device *d, void *cmd, uint32_t before, uint32_t after) {
	enum { READ = 0x20, WRITE = 0x40, TREAD = 0x800, TWRITE = 0x1000, HREAD = 0x2000 };     // accesses
	enum { COMPUTE = 0x800, TRANSFER = 0x1000, HOST = 0x4000 };                             // stages
	struct { head h; uint32_t src, dst; } m = { {STYPE_MEMORY_BARRIER, NULL}, 0, 0 };
	uint32_t src = 0, dst = 0;
	if (before & C5_COMPUTE) src |= COMPUTE, m.src |= WRITE;
	if (before & C5_TRANSFER) src |= TRANSFER, m.src |= TWRITE;
	if (after & C5_COMPUTE) dst |= COMPUTE, m.dst |= READ | WRITE;
	if (after & C5_TRANSFER) dst |= TRANSFER, m.dst |= TREAD | TWRITE;
	if (after & C5_HOST) dst |= HOST, m.dst |= HREAD;
	d->CmdPipelineBarrier(cmd, src, dst, 0, 1, &m, 0, NULL, 0, NULL);
}

// c5_write_commands resets a command pool and writes commands (see native.h) to its command buffer.
VkResult c5_write_commands(c5_device *d, uint64_t pool, void *commands, const void *ops, size_t bytes, const char **call) {
	*call = "vkResetCommandPool";
	VkResult r = d->ResetCommandPool(d->handle, pool, 0);
	struct { head h; uint32_t flags; const void *inheritance; } info = { {STYPE_COMMAND_BUFFER_BEGIN_INFO, NULL}, 0, NULL };
	if (r != 0) return r;
	*call = "vkBeginCommandBuffer";
	r = d->BeginCommandBuffer(commands, &info);
	if (r != 0) return r;
	*call = "vkEndCommandBuffer";
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
			return VK_ERROR_INITIALIZATION_FAILED;
		}
	}
	return d->EndCommandBuffer(commands);
}

// ---- submission and waiting -------------------------------------------------------------------------------------------

// c5_submit starts command buffers, each in a submission of its own, the last one with the fence. Without command
// buffers it submits the fence alone. Queries are reset first, if there are any. *started is the number of successful
// submissions.
VkResult c5_submit(c5_device *d, void *const *commands, uint32_t count, uint64_t fence, uint64_t pool, uint32_t queries, uint32_t *started) {
	if (queries) d->ResetQueryPool(d->handle, pool, 0, queries);
	if (count == 0) return d->QueueSubmit(d->queue, 0, NULL, fence);
	VkResult r = 0;
	for (uint32_t i = 0; i < count && r == 0; i++) {
		struct { head h; uint32_t waits; const void *wait, *stages; uint32_t commands; void *const *command; uint32_t signals; const void *signal; } info =
			{ {STYPE_SUBMIT_INFO, NULL}, 0, NULL, NULL, 1, commands + i, 0, NULL };
		r = d->QueueSubmit(d->queue, 1, &info, i + 1 == count ? fence : 0);
		if (r == 0) ++*started;
	}
	return r;
}

// c5_fence_sleep waits for a fence in the driver. VK_TIMEOUT: it was not signaled in time.
VkResult c5_fence_sleep(c5_device *d, uint64_t fence, uint64_t nanoseconds) { return d->WaitForFences(d->handle, 1, &fence, 1, nanoseconds); }

// c5_fence_poll queries the status of a fence up to times times, until it is signaled. VK_NOT_READY: it is not.
VkResult c5_fence_poll(c5_device *d, uint64_t fence, uint32_t times) {
	VkResult r = VK_NOT_READY;
	while (times-- && r == VK_NOT_READY) r = d->GetFenceStatus(d->handle, fence);
	return r;
}

VkResult c5_fence_reset(c5_device *d, uint64_t fence) { return d->ResetFences(d->handle, 1, &fence); }
