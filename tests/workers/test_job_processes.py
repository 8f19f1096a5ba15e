"""A job that dies takes nobody with it; its reason is told."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from multiprocessing import forkserver
from pathlib import Path

from gapstone.workers.job_processes import run_jobs, run_one, start_server


def work(job, send):
    if job == "raise":
        raise RuntimeError("out of memory: tried to allocate 7 GiB")
    if job == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if job == "exit":
        os._exit(3)
    send(os.getpid())


def test_every_job_has_its_process_and_its_end():
    jobs = ["a", "raise", "killed", "exit", "b"]
    news = list(run_jobs(work, jobs, workers=2))
    ends = {n.job: (n.kind, n.what) for n in news if n.kind in ("done", "failed")}
    assert set(ends) == set(jobs)
    assert ends["a"] == ends["b"] == ("done", None)
    assert ends["raise"][0] == ends["killed"][0] == ends["exit"][0] == "failed"
    assert "--batch-size" in ends["raise"][1]
    assert "memory" in ends["killed"][1]
    assert "exit code 3" in ends["exit"][1]
    processes = {n.job: n.what for n in news if n.kind == "news"}
    assert len({*processes.values(), os.getpid()}) == 3


def test_at_most_so_many_at_a_time():
    running = most = 0
    for news in run_jobs(work, range(6), workers=2):
        running += {"started": 1, "done": -1}.get(news.kind, 0)
        most = max(most, running)
    assert most == 2


def sleep(job, send):
    send(os.getpid())
    time.sleep(60)


def test_closing_ends_the_jobs():
    running = run_jobs(sleep, [1, 2], workers=2)
    children = [n.what for n in (next(running) for _ in range(4)) if n.kind == "news"]
    running.close()
    assert len(children) == 2
    assert not any(alive(child) for child in children)


def test_jobs_end_when_the_parent_is_killed(tmp_path):
    code = textwrap.dedent("""
        import sys
        sys.path.insert(0, {folder!r})
        from tests.workers.test_job_processes import sleep
        from gapstone.workers import job_processes
        job_processes.PRELOAD = job_processes.PRELOAD[:1]  # these jobs need none of what trials need: 6 s of imports
        from gapstone.workers.job_processes import run_jobs
        if __name__ == "__main__":
            for news in run_jobs(sleep, [1, 2], workers=2):
                print(news.kind, news.what, flush=True)
    """).format(folder=str(Path(__file__).parents[2]))
    script = tmp_path / "parent.py"
    script.write_text(code)
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        lines = [parent.stdout.readline().split() for _ in range(4)]
        children = [int(line[1]) for line in lines if line[0] == "news"]
        assert len(children) == 2
        assert all(alive(child) for child in children)
        parent.kill()
    deadline = time.monotonic() + 120
    while any(alive(child) for child in children):
        assert time.monotonic() < deadline, "orphaned trials are still running"
        time.sleep(0.05)


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    try:  # a zombie that nobody has waited for is dead
        with open(f"/proc/{process}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def parent(_job, send):
    send(os.getppid())


def test_the_server_is_started_once_and_may_be_started_before():
    start_server()
    pid = forkserver._forkserver._forkserver_pid
    assert run_one(parent, None) == pid
    start_server()
    assert run_one(parent, None) == pid
