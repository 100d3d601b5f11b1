// What the C files share, and nobody else. Structures are declared as the Vulkan 1.4 specification lays them out; no Vulkan header is needed to
// build.
#ifndef COLT5_NATIVE_PRIVATE_H
#define COLT5_NATIVE_PRIVATE_H

#include "native.h"

#ifdef _WIN32
#define VKAPI __stdcall
#else
#define VKAPI
#endif

typedef void (VKAPI *fn)(void);
typedef int32_t R;
typedef struct { int32_t type; const void *next; } head;

enum { MESSAGE_SPACE = 1 << 16 };

struct c5_instance {
	void *handle;
	fn (VKAPI *get)(void *, const char *);
	uint64_t messenger;
	volatile int lock;
	uint32_t count;
	size_t used;
	char text[MESSAGE_SPACE];
};

typedef struct { char name[256]; uint32_t version; } extension;

// Feature and property structures are a header and 32-bit words; room for more than any of them holds.
typedef struct { int32_t type; void *next; uint32_t w[64]; } words;

int c5_listed(const extension *e, uint32_t n, const char *name);
void c5_chain(words *base, words *s, int32_t type);
// c5_device_extensions is to be freed.
extension *c5_device_extensions(c5_instance *in, void *physical, uint32_t *n);

#endif
