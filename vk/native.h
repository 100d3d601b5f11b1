// The Vulkan calls that the Go binding cannot make safely or does not have: see native.c.
// Dispatchable handles are void*, all others uint64_t. Functions that return int32_t return a VkResult; those that make
// several Vulkan calls set *call to the name of the one that failed.
#ifndef COLT5_NATIVE_H
#define COLT5_NATIVE_H

#include <stddef.h>
#include <stdint.h>

enum { C5_MAX_MATRIX_SHAPES = 64, C5_MAX_EXECUTABLES = 4, C5_MAX_EXECUTABLE_STATS = 64, C5_MAX_FAMILIES = 16 };

// VkCooperativeMatrixPropertiesKHR without sType and pNext.
typedef struct { uint32_t m, n, k, a, b, c, result, saturating, scope; } c5_matrix_shape;

// Features and properties of a physical device.
typedef struct {
	uint8_t device_uuid[16];
	char driver_name[256], driver_info[256];
	uint32_t subgroup_size, subgroup_stages, subgroup_operations, subgroup_min, subgroup_max, max_workgroup_subgroups;
	uint64_t max_allocation, max_buffer; // max_buffer 0: not known
	uint32_t buffer_device_address, shader_int64, shader_int16, shader_int8, shader_float64, shader_float16;
	uint32_t storage16, storage8, memory_model, memory_model_device, subgroup_extended_types, host_query_reset;
	uint32_t size_control, full_subgroups;
	uint32_t cooperative_matrix, bfloat16, bfloat16_cooperative, cooperative_matrix2_flexible, cooperative_matrix2_workgroup;
	uint32_t cooperative_matrix2_tensor, cooperative_matrix2_conversions, cooperative_matrix2_reductions, cooperative_matrix2_block;
	uint32_t executable_properties, memory_budget, portability_subset;
	uint32_t matrix_shape_count;
	c5_matrix_shape matrix_shapes[C5_MAX_MATRIX_SHAPES];
} c5_probe;

typedef struct c5_instance c5_instance;
typedef struct c5_device c5_device;

void *c5_load(const char *name); // the vkGetInstanceProcAddr of a loader library, or NULL

int32_t c5_instance_new(void *get_proc, int validate, c5_instance **out, const char **call);
void c5_instance_free(c5_instance *in);
void *c5_instance_handle(c5_instance *in);
int32_t c5_physical_devices(c5_instance *in, uint32_t *count, void **devices);
// flags and timestamp_bits have space for *count queue families.
int32_t c5_queue_families(c5_instance *in, void *physical, uint32_t *count, uint32_t *flags, uint32_t *timestamp_bits);
int32_t c5_probe_device(c5_instance *in, void *physical, uint32_t api, c5_probe *p, const char **call);
// c5_heap_budget returns 0 if the budget is not known.
uint32_t c5_heap_budget(c5_instance *in, void *physical, uint32_t heap, uint64_t *budget, uint64_t *usage);

// c5_heap_bytes returns the bytes that malloc has given and free has not got back, 0 where the C library does not say.
uint64_t c5_heap_bytes(void);

// c5_trim_heap gives the memory that malloc keeps for later back to the operating system.
void c5_trim_heap(void);

// c5_drain_messages copies the text of the validation messages, clears them, and returns their count.
uint32_t c5_drain_messages(c5_instance *in, char *out, size_t size);

int32_t c5_device_new(c5_instance *in, void *physical, uint32_t family, const c5_probe *p, c5_device **out, const char **call);
void c5_device_free(c5_device *d);
void *c5_device_handle(c5_device *d);

int32_t c5_buffer_new(c5_device *d, uint64_t size, uint32_t usage, uint64_t *buffer, uint64_t *need, uint64_t *align, uint32_t *types);
int32_t c5_memory_new(c5_device *d, uint64_t size, uint32_t type, uint64_t *memory);
int32_t c5_bind(c5_device *d, uint64_t buffer, uint64_t memory, uint64_t *address, const char **call);
int32_t c5_map(c5_device *d, uint64_t memory, void **at);
int32_t c5_sync_mapped(c5_device *d, uint64_t memory, int to_device);

int32_t c5_cache_new(c5_device *d, const void *data, size_t size, uint64_t *cache);
int32_t c5_cache_data(c5_device *d, uint64_t cache, size_t *size, void *data);
int32_t c5_pipeline_new(c5_device *d, uint64_t cache, const void *code, size_t size, const char *entry, uint32_t push,
	const uint32_t *spec_ids, const uint32_t *spec_values, uint32_t specs, uint32_t subgroup_size, uint32_t full_subgroups,
	uint32_t statistics, uint64_t *layout, uint64_t *pipeline, const char **call);
typedef struct { char name[256]; uint32_t executable, format; uint64_t value; } c5_stat;
int32_t c5_pipeline_stats(c5_device *d, uint64_t pipeline, uint32_t *count, c5_stat *stats, const char **call);

int32_t c5_commands_new(c5_device *d, uint64_t *pool, void **commands, const char **call);
int32_t c5_fence_new(c5_device *d, uint64_t *fence);
int32_t c5_timestamp_pool_new(c5_device *d, uint32_t count, uint64_t *pool);
int32_t c5_queries_read(c5_device *d, uint64_t pool, uint32_t count, uint64_t *ticks);
int32_t c5_write_commands(c5_device *d, uint64_t pool, void *commands, const void *ops, size_t bytes, const char **call);
int32_t c5_submit(c5_device *d, void *const *commands, uint32_t count, uint64_t fence, uint64_t pool, uint32_t queries, uint32_t *started);
int32_t c5_fence_sleep(c5_device *d, uint64_t fence, uint64_t nanoseconds);
int32_t c5_fence_poll(c5_device *d, uint64_t fence, uint32_t times);
int32_t c5_fence_reset(c5_device *d, uint64_t fence);

// Commands of a command buffer (see ops.go). Each starts with c5_op; its size is a multiple of 8 bytes.
enum { C5_OP_DISPATCH = 1, C5_OP_BARRIER, C5_OP_FILL, C5_OP_COPY, C5_OP_TIMESTAMP };
enum { C5_COMPUTE = 1, C5_TRANSFER = 2, C5_HOST = 4 }; // kinds of work, for barriers
typedef struct { uint32_t op, bytes; } c5_op;
typedef struct { c5_op h; uint32_t before, after; } c5_op_barrier;
typedef struct { c5_op h; uint64_t pipeline, layout; uint32_t groups[3], push; /* push bytes follow */ } c5_op_dispatch;
typedef struct { c5_op h; uint64_t buffer, offset, size; uint32_t value, pad; } c5_op_fill;
typedef struct { c5_op h; uint64_t from, from_offset, to, to_offset, size; } c5_op_copy;
typedef struct { c5_op h; uint64_t pool; uint32_t query, pad; } c5_op_timestamp;

#endif
