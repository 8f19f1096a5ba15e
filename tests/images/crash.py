"""What the workers of test_crew.py run: some of it dies on purpose."""

import os
import signal
import time


def work(constant: int, task: object) -> object:
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
