/* A fake of libcudart as a library, for tests alone: the memory of its GPU is this process's. */
#include <stdlib.h>
#include <string.h>

int cudaStreamCreate(void **stream) { *stream = (void *)77; return 0; }
int cudaStreamDestroy(void *stream) { return stream == (void *)77 ? 0 : 400; }
int cudaStreamSynchronize(void *stream) { return stream == (void *)77 ? 0 : 400; }
int cudaMalloc(void **address, size_t size) { *address = malloc(size); return *address ? 0 : 2; }
int cudaFree(void *address) { free(address); return 0; }
int cudaMemcpyAsync(void *to, const void *from, size_t size, int direction, void *stream) {
    memcpy(to, from, size);
    return (direction == 1 || direction == 2) && stream == (void *)77 ? 0 : 400;
}
const char *cudaGetErrorName(int code) { return code == 2 ? "cudaErrorMemoryAllocation" : "cudaErrorInvalidResourceHandle"; }
const char *cudaGetErrorString(int code) { return code ? "it fails" : "no error"; }
