/* Preloaded into a process, it hides VNNI (and, unless KEEP_AVX512, all of AVX-512) from whoever asks the processor what
 * it has: the instruction cpuid traps, and the answer comes from here. Exit status 77: the processor cannot trap it. */
#define _GNU_SOURCE
#include <cpuid.h>
#include <signal.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define ARCH_SET_CPUID 0x1012
#define BIT(n) (1u << (n))
#define AVX512_EBX (BIT(16) | BIT(17) | BIT(21) | BIT(28) | BIT(30) | BIT(31))
#define AVX512_VNNI_ECX BIT(11)
#define AMX_EDX (BIT(22) | BIT(24) | BIT(25))
#define AVX_VNNI_EAX BIT(4)
#define AVX_VNNI_INT8_EDX BIT(4)

static void answer(int number, siginfo_t *info, void *context) {
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    const unsigned char *code = (const unsigned char *)registers[REG_RIP];
    unsigned leaf = registers[REG_RAX], part = registers[REG_RCX], a, b, c, d;
    if (code[0] != 0x0f || code[1] != 0xa2) { /* not cpuid: a real fault, which comes again */
        signal(number, SIG_DFL);
        return;
    }
    syscall(SYS_arch_prctl, ARCH_SET_CPUID, 1);
    __cpuid_count(leaf, part, a, b, c, d);
    syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0);
    if (leaf == 7 && part == 0) {
#ifndef KEEP_AVX512
        b &= ~AVX512_EBX;
#endif
        c &= ~AVX512_VNNI_ECX;
        d &= ~AMX_EDX;
    } else if (leaf == 7 && part == 1) {
        a &= ~AVX_VNNI_EAX;
        d &= ~AVX_VNNI_INT8_EDX;
    }
    registers[REG_RAX] = a, registers[REG_RBX] = b, registers[REG_RCX] = c, registers[REG_RDX] = d;
    registers[REG_RIP] += 2;
}

__attribute__((constructor)) static void start(void) {
    struct sigaction action = {.sa_sigaction = answer, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &action, 0);
    if (syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0)) _exit(77);
}
