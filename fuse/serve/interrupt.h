/* Programs that are killed while they wait for an answer: they get one at once. */
#ifndef REPLFS_FUSE_SERVE_INTERRUPT_H
#define REPLFS_FUSE_SERVE_INTERRUPT_H
#include <stdint.h>

/* A request was read from fd: `unique` of thread tid's call. And one that says that a caller was interrupted. */
void interrupt_saw(uint64_t unique, uint32_t opcode, uint32_t tid);
void interrupt_came(int fd, uint64_t unique);
/* It is being answered. */
void interrupt_answered(uint64_t unique);
/* The request may last, and the kernel would not tell that its caller is killed. */
void interrupt_lasting(int fd, uint64_t unique, uint32_t tid);
/* Ends the thread that looks after those who wait. */
void interrupt_stop(void);
#endif
