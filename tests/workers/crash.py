"""What the workers of test_worker_pool.py run: some of it dies on purpose."""

import os
import signal
import stat
import struct
import time

# what a decoder that a hostile file has taken over may send instead of its answer
NONSENSE = {
    "garbage": os.urandom(64),
    "a pickle": b"\x80\x05\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system",
    "2 TB of bytes": struct.pack("<IQ", 2, 1 << 41) + b"{}",
    "4 GB of header": struct.pack("<IQ", 0xFFFFFFFF, 0),
    "no JSON": struct.pack("<IQ", 4, 0) + b"}{}{",
    "nested lists": struct.pack("<IQ", 1_000_000, 0) + b"[" * 1_000_000,
    "a number of a million digits": struct.pack("<IQ", 1_000_000, 0) + b"1" * 1_000_000,
    "an array of more than there is": struct.pack("<IQ", 40, 4)
    + b'["done", {"array": [3000, 3000]}]'.ljust(40)
    + b"1234",
    "an array of a negative size": struct.pack("<IQ", 40, 4) + b'["done", {"array": [-2, -2]}]'.ljust(40) + b"1234",
    "bytes that nothing uses": struct.pack("<IQ", 10, 4) + b'["done",1]1234',
    "no answer": struct.pack("<IQ", 10, 0) + b'["raises"]',
}


def work(constant: int, task: object) -> object:
    if (isinstance(task, str) and task in NONSENSE) or task == "half a message":
        for fd in range(3, 64):
            try:
                pipe = stat.S_ISFIFO(os.fstat(fd).st_mode)
                if pipe and task == "half a message":
                    os.write(fd, struct.pack("<IQ", 1000, 0) + b"[")
                elif pipe:
                    os.write(fd, NONSENSE[str(task)])
            except OSError:  # closed, or the end that is read from
                continue
        time.sleep(60)
    if task == "orphan" and os.fork() == 0:  # keeps its parent's pipes open
        time.sleep(60)
        os._exit(0)
    if task == "orphan":
        os.kill(os.getpid(), signal.SIGSEGV)
    if task == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if task == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if task == "exit":
        os._exit(3)
    if task == "sleep":
        time.sleep(60)
    if task == "raise":
        raise ValueError("on purpose")
    if task == "print":
        print("chatter that must not get into the answers", flush=True)
    if task == "memory":
        try:
            return len(bytearray(1 << 34))
        except MemoryError:
            return "MemoryError"
    assert isinstance(task, (int, str))
    return task if isinstance(task, str) else constant + task
