/* Lets a program run as on a lesser x86 CPU: CPUID answers it without the newer instruction sets, so that every
 * runtime in it takes the kernels of that CPU, at native speed. For LD_PRELOAD; LESSER_CPU says which CPU:
 * avx2, avx512 (both without VNNI), avx2_vnni, avx512_vnni (both without AMX).
 *
 * Linux makes CPUID fault where the processor can (arch_prctl(2), ARCH_SET_CPUID); the fault's handler answers.
 * Bits: Intel SDM volume 2A, CPUID, leaves 7.0 and 7.1. What the kernel tells in /proc/cpuinfo stays as it is. */
#define _GNU_SOURCE
#include <asm/prctl.h>
#include <dlfcn.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define BIT(n) (1u << (n))

static int avx512 = 1, avx512_vnni = 1, avx_vnni = 1, amx = 1, masking = 0;

/* Inside the handler no library may be called that asks CPUID itself. */
static long cpuid_faults(long allowed) {
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(SYS_arch_prctl), "D"(ARCH_SET_CPUID), "S"(allowed)
                     : "rcx", "r11", "memory");
    return result;
}

static void mask(uint32_t leaf, uint32_t subleaf, uint32_t *a, uint32_t *b, uint32_t *c, uint32_t *d) {
    if (leaf == 7 && subleaf == 0) {
        if (!avx512) {
            *b &= ~(BIT(16) | BIT(17) | BIT(21) | BIT(26) | BIT(27) | BIT(28) | BIT(30) | BIT(31));
            *c &= ~(BIT(1) | BIT(6) | BIT(11) | BIT(12) | BIT(14));
            *d &= ~(BIT(2) | BIT(3) | BIT(8) | BIT(23));
        }
        if (!avx512_vnni) *c &= ~BIT(11);
        if (!amx) *d &= ~(BIT(22) | BIT(24) | BIT(25));
    }
    if (leaf == 7 && subleaf == 1) {
        if (!avx_vnni) {
            *a &= ~BIT(4);
            *d &= ~(BIT(4) | BIT(10));
        }
        if (!avx512) *a &= ~BIT(5);
        if (!amx) {
            *a &= ~BIT(21);
            *d &= ~BIT(8);
        }
    }
    if (leaf == 0x1e && !amx) *a = *b = *c = *d = 0;
}

static void on_fault(int number, siginfo_t *info, void *context) {
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    const uint8_t *instruction = (const uint8_t *)registers[REG_RIP];
    (void)info;
    if (instruction[0] != 0x0f || instruction[1] != 0xa2) {
        /* A true fault: it comes again, and ends the program. */
        masking = 0;
        signal(number, SIG_DFL);
        return;
    }
    uint32_t leaf = registers[REG_RAX], subleaf = registers[REG_RCX], a = leaf, b, c = subleaf, d;
    cpuid_faults(1);
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    cpuid_faults(0);
    mask(leaf, subleaf, &a, &b, &c, &d);
    registers[REG_RAX] = a;
    registers[REG_RBX] = b;
    registers[REG_RCX] = c;
    registers[REG_RDX] = d;
    registers[REG_RIP] += 2;
}

/* Others (Python's faulthandler) must not take the handler away. */
int sigaction(int number, const struct sigaction *new, struct sigaction *old) {
    static int (*real)(int, const struct sigaction *, struct sigaction *);
    if (!real) real = dlsym(RTLD_NEXT, "sigaction");
    if (number == SIGSEGV && masking && new) {
        if (old) memset(old, 0, sizeof *old);
        return 0;
    }
    return real(number, new, old);
}

__attribute__((constructor)) static void begin(void) {
    const char *cpu = getenv("LESSER_CPU");
    if (!cpu) return;
    if (!strcmp(cpu, "avx2"))
        avx512 = avx512_vnni = avx_vnni = amx = 0;
    else if (!strcmp(cpu, "avx512"))
        avx512_vnni = avx_vnni = amx = 0;
    else if (!strcmp(cpu, "avx2_vnni"))
        avx512 = avx512_vnni = amx = 0;
    else if (!strcmp(cpu, "avx512_vnni"))
        avx_vnni = amx = 0;
    else
        _exit(97);
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    sigaction(SIGSEGV, &action, 0);
    masking = 1;
    if (cpuid_faults(0) != 0) _exit(98);
}
