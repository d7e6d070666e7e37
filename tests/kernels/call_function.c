/* Calls a function of a shared library, as build.call does: LIBRARY FUNCTION MEMORY [ARGUMENT ...], and prints its result.

   An argument is an integer, or @ with the place of a tensor or a structure in the file MEMORY, which the function changes. */
#include <dlfcn.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define MAX_ARGUMENTS 16
#define FIRST_ARGUMENT 4

int main(int count, char **words) {
    void *library = count < FIRST_ARGUMENT ? NULL : dlopen(words[1], RTLD_NOW);
    void *address = library ? dlsym(library, words[2]) : NULL;
    int file = address ? open(words[3], O_RDWR) : -1;
    char *memory = file < 0 ? MAP_FAILED : mmap(NULL, lseek(file, 0, SEEK_END), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (memory == MAP_FAILED || count > FIRST_ARGUMENT + MAX_ARGUMENTS) return fprintf(stderr, "%s\n", library ? words[2] : dlerror()), 1;
    int64_t a[MAX_ARGUMENTS] = {0}; /* those that the function does not have are ignored */
    for (int i = FIRST_ARGUMENT; i < count; i++)
        a[i - FIRST_ARGUMENT] = words[i][0] == '@' ? (intptr_t)(memory + atoll(words[i] + 1)) : atoll(words[i]);
    int64_t (*function)(int64_t, ...) = (int64_t(*)(int64_t, ...))address;
    printf("%" PRId64 "\n", function(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9], a[10], a[11],
                               a[12], a[13], a[14], a[15]));
}
