"""Asynchronous O_DIRECT writes, read back buffered, while others read the file buffered. usage: direct_aio.py FILE SECONDS"""
import ctypes, mmap, os, random, struct, sys, time

path, seconds = sys.argv[1], float(sys.argv[2])
libc = ctypes.CDLL(None, use_errno=True)
BLOCK, BLOCKS = 4096, 64
IO_SETUP, IO_GETEVENTS, IO_SUBMIT, PWRITE = 206, 208, 209, 1


def reader(until):
    fd = os.open(path, os.O_RDONLY)
    while time.time() < until:
        for i in range(BLOCKS):
            os.pread(fd, BLOCK, i * BLOCK)


def writer(until):
    ctx = ctypes.c_ulong(0)
    if libc.syscall(IO_SETUP, 8, ctypes.byref(ctx)):
        return None
    fd, back = os.open(path, os.O_RDWR | os.O_DIRECT), os.open(path, os.O_RDONLY)
    buf = mmap.mmap(-1, BLOCK)
    at = ctypes.addressof(ctypes.c_char.from_buffer(buf))
    done = ctypes.create_string_buffer(32)
    k = 0
    while time.time() < until:
        k += 1
        block = random.randrange(BLOCKS)
        buf[:] = struct.pack('<Q', k) * (BLOCK // 8)
        iocb = ctypes.create_string_buffer(struct.pack('<QIiHhIQQqQII', 0, 0, 0, PWRITE, 0, fd, at, BLOCK, block * BLOCK, 0, 0, 0), 64)
        list_ = (ctypes.c_void_p * 1)(ctypes.addressof(iocb))
        if libc.syscall(IO_SUBMIT, ctx, 1, list_) != 1 or libc.syscall(IO_GETEVENTS, ctx, 1, 1, done, None) != 1:
            sys.exit('submit: ' + os.strerror(ctypes.get_errno()))
        if struct.unpack_from('<q', done, 16)[0] != BLOCK:
            sys.exit('written: %d' % struct.unpack_from('<q', done, 16)[0])
        got = struct.unpack_from('<Q', os.pread(back, 8, block * BLOCK))[0]
        if got != k:
            sys.exit('write %d of block %d was read back as %d' % (k, block, got))
    return k


with open(path, 'wb') as f:
    f.write(bytes(BLOCK * BLOCKS))
until, pids = time.time() + seconds, []
for _ in range(2):
    pid = os.fork()
    if not pid:
        reader(until)
        os._exit(0)
    pids.append(pid)
try:
    n = writer(until)
finally:
    for p in pids:
        os.kill(p, 9)
        os.waitpid(p, 0)
print('no asynchronous I/O here' if n is None else '%d writes' % n)
