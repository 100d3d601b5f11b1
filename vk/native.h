// Everything of Vulkan that the Go binding cannot do safely or does not know: see native.c.
// Dispatchable handles are void*, all others uint64_t; results are VkResult values.
#ifndef COLT5_NATIVE_H
#define COLT5_NATIVE_H

#include <stddef.h>
#include <stdint.h>

enum { C5_MAX_SHAPES = 64, C5_MAX_EXECUTABLE_STATS = 32, C5_MAX_FAMILIES = 16 };

// One cooperative-matrix shape: VkCooperativeMatrixPropertiesKHR without its header.
typedef struct { uint32_t m, n, k, a, b, c, result, saturating, scope; } c5_shape;

// What the feature and property chains say of a physical device; 0 means no.
typedef struct {
	uint8_t device_uuid[16];
	char driver_name[256], driver_info[256];
	uint32_t subgroup_size, subgroup_stages, subgroup_operations, subgroup_min, subgroup_max;
	uint64_t max_allocation;
	uint32_t buffer_device_address, shader_int64, shader_int16, shader_int8, shader_float64, shader_float16;
	uint32_t storage16, storage8, memory_model, memory_model_device, subgroup_extended_types, host_query_reset;
	uint32_t size_control, full_subgroups;
	uint32_t cooperative_matrix, bfloat16, bfloat16_cooperative, cooperative_matrix2_flexible, cooperative_matrix2_workgroup;
	uint32_t cooperative_matrix2_tensor, cooperative_matrix2_conversions, cooperative_matrix2_reductions, cooperative_matrix2_block;
	uint32_t executable_properties, memory_budget, portability_subset;
	uint32_t shape_count;
	c5_shape shapes[C5_MAX_SHAPES];
} c5_probe;

typedef struct c5_instance c5_instance;
typedef struct c5_device c5_device;

void *c5_load(const char *name);

int32_t c5_instance_new(void *get_proc, int validate, c5_instance **out);
void c5_instance_free(c5_instance *in);
void *c5_instance_handle(c5_instance *in);
int32_t c5_physical_devices(c5_instance *in, uint32_t *count, void **devices);
// The flags and timestamp bits of up to *count queue families.
int32_t c5_queue_families(c5_instance *in, void *physical, uint32_t *count, uint32_t *flags, uint32_t *timestamp_bits);
int32_t c5_probe_device(c5_instance *in, void *physical, uint32_t api, c5_probe *p);
uint32_t c5_heap_budget(c5_instance *in, void *physical, uint32_t heap, uint64_t *budget, uint64_t *usage);
uint32_t c5_messages(c5_instance *in, char *out, size_t size);

int32_t c5_device_new(c5_instance *in, void *physical, uint32_t family, const c5_probe *p, c5_device **out);
void c5_device_free(c5_device *d);
void *c5_device_handle(c5_device *d);

int32_t c5_buffer_new(c5_device *d, uint64_t size, uint32_t usage, uint64_t *buffer, uint64_t *need, uint64_t *align, uint32_t *types);
int32_t c5_memory_new(c5_device *d, uint64_t size, uint32_t type, uint64_t *memory);
int32_t c5_bind(c5_device *d, uint64_t buffer, uint64_t memory, uint64_t *address);
int32_t c5_map(c5_device *d, uint64_t memory, void **at);
int32_t c5_sync_mapped(c5_device *d, uint64_t memory, int to_device);

int32_t c5_cache_new(c5_device *d, const void *data, size_t size, uint64_t *cache);
int32_t c5_cache_data(c5_device *d, uint64_t cache, size_t *size, void *data);
int32_t c5_pipeline_new(c5_device *d, uint64_t cache, const void *code, size_t size, const char *entry, uint32_t push,
	const uint32_t *spec_ids, const uint32_t *spec_values, uint32_t specs, uint32_t subgroup_size, uint32_t full,
	uint32_t capture, uint64_t *layout, uint64_t *pipeline);
typedef struct { char name[256]; uint32_t executable, format; uint64_t value; } c5_stat;
int32_t c5_pipeline_stats(c5_device *d, uint64_t pipeline, uint32_t *count, c5_stat *stats);

int32_t c5_commands_new(c5_device *d, uint64_t *pool, void **commands);
int32_t c5_fence_new(c5_device *d, uint64_t *fence);
int32_t c5_queries_new(c5_device *d, uint32_t count, uint64_t *pool);
int32_t c5_queries_read(c5_device *d, uint64_t pool, uint32_t count, uint64_t *ticks);
int32_t c5_encode(c5_device *d, uint64_t pool, void *commands, const void *ops, size_t bytes);
int32_t c5_submit(c5_device *d, void *const *commands, uint32_t count, uint64_t fence, uint64_t pool, uint32_t queries, uint32_t *started);
int32_t c5_fence_sleep(c5_device *d, uint64_t fence, uint64_t nanoseconds);
int32_t c5_fence_poll(c5_device *d, uint64_t fence, uint32_t times);
int32_t c5_fence_reset(c5_device *d, uint64_t fence);

// Tape operations (see tape.go). Every operation starts with this header and is a multiple of 8 bytes long.
enum { C5_OP_DISPATCH = 1, C5_OP_BARRIER, C5_OP_FILL, C5_OP_COPY, C5_OP_TIMESTAMP };
enum { C5_COMPUTE = 1, C5_TRANSFER = 2, C5_HOST = 4 }; // kinds of work, for barriers
typedef struct { uint32_t op, bytes; } c5_op;
typedef struct { c5_op h; uint32_t before, after; } c5_op_barrier;
typedef struct { c5_op h; uint64_t pipeline, layout; uint32_t groups[3], push; /* push bytes follow */ } c5_op_dispatch;
typedef struct { c5_op h; uint64_t buffer, offset, size; uint32_t value, pad; } c5_op_fill;
typedef struct { c5_op h; uint64_t from, from_offset, to, to_offset, size; } c5_op_copy;
typedef struct { c5_op h; uint64_t pool; uint32_t query, pad; } c5_op_timestamp;

#endif
