// Counts the bytes that a process has asked malloc for and not given back: what it needs, whereas what it holds
// depends on the holes that glibc keeps between tensors. workers.py compiles it for the processes of bench_whole.py.
#include <errno.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stddef.h>

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);
extern void __libc_free(void *);

static atomic_long now, top;

long in_use_now(void) { return atomic_load(&now); }

// The most since the last time this was asked.
long in_use_top(void) { return atomic_exchange(&top, atomic_load(&now)); }

static void *got(void *place) {
    if (place) {
        long size = (long)malloc_usable_size(place), sum = atomic_fetch_add(&now, size) + size, seen = atomic_load(&top);
        while (sum > seen && !atomic_compare_exchange_weak(&top, &seen, sum)) {
        }
    }
    return place;
}

static void gone(void *place) {
    if (place) atomic_fetch_sub(&now, (long)malloc_usable_size(place));
}

void *malloc(size_t size) { return got(__libc_malloc(size)); }

void *calloc(size_t count, size_t size) { return got(__libc_calloc(count, size)); }

void *memalign(size_t alignment, size_t size) { return got(__libc_memalign(alignment, size)); }

void *aligned_alloc(size_t alignment, size_t size) { return got(__libc_memalign(alignment, size)); }

void *realloc(void *place, size_t size) {
    gone(place);
    return got(__libc_realloc(place, size));
}

int posix_memalign(void **result, size_t alignment, size_t size) {
    void *place = __libc_memalign(alignment, size);
    if (!place) return ENOMEM;
    *result = got(place);
    return 0;
}

void free(void *place) {
    gone(place);
    __libc_free(place);
}
