/* Lets User-Mode Linux run on processors whose register state is larger than it knows (AMX).
 *
 * UML 6.1 keeps a fixed part of the XSAVE area of its processes and sets exactly that part back;
 * kernels since 5.16 take nothing but the whole. This library, loaded in front of linux.uml, fills
 * up what is missing with what the process has. Nothing in a test needs the tiles.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/uio.h>

typedef long (*ptrace_call)(int, pid_t, void *, void *);

long ptrace(enum __ptrace_request request, ...)
{
    static ptrace_call real;
    static char whole[65536];
    va_list rest;

    if (!real)
        real = (ptrace_call)dlsym(RTLD_NEXT, "ptrace");
    va_start(rest, request);
    pid_t pid = va_arg(rest, pid_t);
    void *kind = va_arg(rest, void *);
    void *data = va_arg(rest, void *);
    va_end(rest);
    if (request == PTRACE_SETREGSET && (long)kind == NT_X86_XSTATE) {
        struct iovec *part = data, all = {whole, sizeof whole};
        if (real(PTRACE_GETREGSET, pid, kind, &all) == 0 && part->iov_len < all.iov_len) {
            memcpy(whole, part->iov_base, part->iov_len);
            return real(request, pid, kind, &all);
        }
    }
    return real(request, pid, kind, data);
}
