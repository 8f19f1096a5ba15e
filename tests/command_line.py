"""`gapstone` as a person types it, without 5 s of imports for every call: each is forked from a process that made them.

What is tried before anything is imported (signals, the working folder) starts processes of its own.
"""

import atexit
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

SERVER = """
import atexit, json, os, sys
from multiprocessing import forkserver
import torch, gapstone.cli, gapstone.comparing.run_comparison
import gapstone.explaining.explain_files, gapstone.explaining.predict_files, gapstone.evaluating.train_model
from gapstone.__main__ import main
for line in sys.stdin:
    call = json.loads(line)
    child = os.fork()
    if child == 0:
        os.chdir(call["cwd"])
        os.environ.clear()
        os.environ.update(call["env"])
        for number, place in enumerate((os.devnull, call["out"], call["err"])):
            opened = os.open(place, os.O_RDWR)
            os.dup2(opened, number)
            os.close(opened)
        for stream in (sys.stdout, sys.stderr):
            encoding, _, errors = call["env"].get("PYTHONIOENCODING", "").partition(":")
            stream.reconfigure(encoding=encoding or None, errors=errors or None)
        sys.argv = ["gapstone", *call["arguments"]]
        try:
            code = main()
        except SystemExit as stop:
            code = stop.code
        if (trials := forkserver._forkserver._forkserver_pid) is not None:  # it would import for 6 s more, for nobody
            os.kill(trials, 9)
        # as a process ends, without taking apart what it imported: that is half of a short command's time
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code or 0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@lru_cache
def _server() -> "subprocess.Popen[str]":
    safe = {**os.environ, "PYTHONSAFEPATH": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=safe
    )
    atexit.register(process.kill)
    return process


def gapstone(
    *arguments: object, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    """`gapstone("train", "digits", cwd=folder)`: its exit code, and what it printed."""
    server = _server()
    pipes: tuple[Any, Any] = server.stdin, server.stdout
    with tempfile.NamedTemporaryFile() as out, tempfile.NamedTemporaryFile() as err:
        call = {
            "arguments": [*map(str, arguments)], "cwd": str(cwd or Path.cwd()), "env": dict(env or os.environ),
            "out": out.name, "err": err.name,
        }  # fmt: skip
        print(json.dumps(call), file=pipes[0], flush=True)
        code = int(pipes[1].readline())
        return subprocess.CompletedProcess(call["arguments"], code, _text(out), _text(err))


def _text(file: IO[bytes]) -> str:
    return Path(file.name).read_text("utf-8")
