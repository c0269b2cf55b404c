/* A fake of NVML and of what of the driver says which card computes, for tests alone: a card of 50 W.
   Its functions, and what they are given, are those of NVIDIA's headers (nvml.h, cuda.h). */
#include <string.h>
#include <time.h>

static const char *place = "00000000:3B:00.0";
int has_energy = 1;
unsigned long long reasons = 0x01, held_ns = 0;

int cuInit(unsigned int flags) { return flags; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal + 5; return ordinal; }
int cuDeviceGetPCIBusId(char *to, int size, int device) {
    if (device != 5 || size < (int)strlen(place) + 1) return 1;
    strcpy(to, place);
    return 0;
}

int nvmlInit_v2(void) { return 0; }
int nvmlDeviceGetHandleByPciBusId_v2(const char *at, void **card) {
    *card = (void *)0x123456789abcULL;
    return strcmp(at, place) ? 6 : 0;
}
static int other(void *card) { return card != (void *)0x123456789abcULL; }
int nvmlDeviceGetPowerUsage(void *card, unsigned int *milliwatts) { *milliwatts = 50000; return other(card); }
int nvmlDeviceGetTotalEnergyConsumption(void *card, unsigned long long *millijoules) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    *millijoules = 50000ULL * now.tv_sec + now.tv_nsec / 20000ULL;
    return has_energy ? other(card) : 3;
}
int nvmlDeviceGetTemperature(void *card, int sensor, unsigned int *degrees) { *degrees = 61; return other(card) || sensor; }
int nvmlDeviceGetClockInfo(void *card, int kind, unsigned int *mhz) { *mhz = 1410; return other(card) || kind != 1; }
int nvmlDeviceGetMaxClockInfo(void *card, int kind, unsigned int *mhz) { *mhz = 2100; return other(card) || kind != 1; }
int nvmlDeviceGetCurrentClocksThrottleReasons(void *card, unsigned long long *mask) { *mask = reasons; return other(card); }
int nvmlDeviceGetViolationStatus(void *card, int policy, unsigned long long *told) {
    told[0] = 1, told[1] = policy == 1 ? held_ns : 0;
    held_ns += 7;
    return policy > 1 ? 3 : other(card);
}
