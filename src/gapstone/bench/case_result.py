"""Checks and measures a case: gapstone, torch, the limit of the memory, and further contenders."""

import re
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from gapstone.bench import eager_pools, verify_answers
from gapstone.bench.cases import Case
from gapstone.bench.contenders import CaseArrays, Contender, Run, gapstone, torch_eager
from gapstone.bench.measure import TimeSpread, interleaved, ratio, spread
from gapstone.bench.our_call import looks_at_x, loop_for
from gapstone.bench.saved_memory import SavedMemory, saved_memory_of

OURS, TORCH, LIMIT = "gapstone", "torch", "limit"


@dataclass(frozen=True)
class CaseResult:
    """The measurements of one case."""

    case: Case
    threads: int
    section: str = ""
    loop: str = ""
    limit: str = ""
    """The limit that memory sets: "copy" or "read" of the map."""
    wrong: str | None = None
    """Why gapstone's output is wrong; it was then not timed."""
    refused: str | None = None
    """Why gapstone's loop does not support the case; it was then not timed."""
    notes: dict[str, str] = field(default_factory=dict)
    """Why other contenders were not timed, by name."""
    bytes: int = 0
    """Bytes that are read once and written once."""
    limit_bytes: int = 0
    first: float = 0.0
    """Seconds of the first call, which compiles or loads kernels."""
    seconds: dict[str, TimeSpread] = field(default_factory=dict)
    ratios: dict[str, TimeSpread] = field(default_factory=dict)
    """Time of each contender divided by gapstone's: above 1 gapstone is faster."""
    kept: dict[str, SavedMemory] = field(default_factory=dict)
    """Memory that the forward pass saves for the backward pass."""
    answers: int = 0

    @property
    def speed(self) -> float:
        """GB/s of gapstone."""
        return self.bytes / self.seconds[OURS].median / 1e9

    @property
    def fraction(self) -> float:
        """Share of the speed at which the same array is copied or read."""
        return self.speed / (self.limit_bytes / self.seconds[LIMIT].median / 1e9)

    def verdict(self, other: str = TORCH) -> str:
        """Return "faster" or "slower" if three of four rounds show it, else "alike"."""
        interval = self.ratios[other]
        if interval.low > 1.02:
            return "faster"
        return "slower" if interval.high < 0.98 else "alike"

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def read(cls, document: dict[str, Any]) -> "CaseResult":
        parts: dict[str, Any] = {
            "case": Case.read(document["case"]),
            "seconds": {name: TimeSpread(**fields) for name, fields in document["seconds"].items()},
            "ratios": {name: TimeSpread(**fields) for name, fields in document["ratios"].items()},
            "kept": {name: SavedMemory(**fields) for name, fields in document["kept"].items()},
        }
        return cls(**{**document, **parts})


def measure(
    case: Case,
    rounds: int,
    seconds: float,
    threads: int,
    others: Mapping[str, Contender] | None = None,
    section: str = "",
) -> CaseResult:
    """Check a case, then time it. Contenders that are missing, do not support it or are wrong get a note instead."""
    torch.set_num_threads(threads)
    job = CaseArrays(case, threads)
    keep = case.keep or case.direction == "backward"
    loop = loop_for(case.pool, job.x, job.place, job.parameters, keep)
    with torch.inference_mode() if case.direction == "forward" else nullcontext():
        began = time.perf_counter()
        try:
            run = gapstone(job)
            output = run()
        except NotImplementedError as error:
            return CaseResult(case, threads, section, loop, refused=str(error))
        first = time.perf_counter() - began
        torch_run = torch_eager(job)
        dtype = job.x.dtype
        if reason := verify_answers.wrong(output, job.truth, torch_run(), dtype) or _wrong_answer(job):
            return CaseResult(case, threads, section, loop, wrong=reason, first=first)
        runs, notes = {OURS: run, TORCH: torch_run}, {}
        for name, contender in (others or {}).items():
            other, reason = _ready(contender, job)
            if other:
                runs[name] = other
            else:
                notes[name] = reason
        limit, runs[LIMIT], limit_bytes = _limit(job)
        samples = interleaved(runs, rounds, seconds, threads)
    return CaseResult(
        case,
        threads,
        section,
        loop,
        limit,
        notes=notes,
        bytes=_moved(job),
        limit_bytes=limit_bytes,
        first=first,
        seconds={name: spread(times) for name, times in samples.items()},
        ratios={name: ratio(times, samples[OURS]) for name, times in samples.items() if name not in (OURS, LIMIT)},
        kept=_kept(job),
        answers=job.answers,
    )


def _wrong_answer(job: CaseArrays) -> str | None:
    """Check the forward pass that saves for the backward pass, which is another kernel; return why it is wrong."""
    if job.case.direction == "forward":
        return None
    with torch.no_grad():
        reference = eager_pools.formula(job.case, job.mask)
        truth = reference(job.x.double(), *([] if job.learned is None else [job.learned.double()]))
        plain = job.torch_answer(job.x)
    reason = verify_answers.wrong(job.answer(job.x.detach().requires_grad_()).detach(), (truth,), plain, job.x.dtype)
    return f"the forward that keeps is {reason}" if reason else None


def _ready(contender: Contender, job: CaseArrays) -> tuple[Run | None, str]:
    """Return a contender's call if its output is right, else the reason: its failure must not end a long run."""
    try:
        run = contender(job)
        reason = verify_answers.unlike(run(), job.truth, job.x.dtype)
        return (None, f"wrong: {reason}") if reason else (run, "")
    except (NotImplementedError, ImportError) as error:
        return None, str(error)
    except Exception as error:
        return None, f"failed: {type(error).__name__}: {str(error).partition(chr(10))[0][:80]}"


def _limit(job: CaseArrays) -> tuple[str, Run, int]:
    """Return (name, call, bytes) of the limit: reading the map for pools over whole maps, else copying it."""
    flat = torch.empty(0).set_(job.x.untyped_storage())
    if job.case.window is None and job.case.direction == "forward":
        return "read", flat.sum, flat.nbytes
    copy = torch.empty_like(flat)
    return "copy", lambda: copy.copy_(flat), 2 * flat.nbytes


def _moved(job: CaseArrays) -> int:
    """Return the bytes that the case itself must read and write, without what a contender saves."""
    size = job.x.element_size()
    moved = (job.x.numel() + job.answers) * size
    reads_map = job.case.direction == "backward" and looks_at_x(job.case.pool)
    return moved + (job.x.numel() * size if reads_map else 0)


def _kept(job: CaseArrays) -> dict[str, SavedMemory]:
    """Return the memory that the forward pass saves, if the backward pass is measured."""
    if job.case.direction == "forward":
        return {}
    return {OURS: saved_memory_of(job.answer, job.x), TORCH: saved_memory_of(job.torch_answer, job.x)}


def select(cases: list[Case], only: str) -> list[Case]:
    """Return the cases whose title, shape, direction and layout match a regular expression."""
    try:
        re.compile(only)
    except re.error as problem:
        raise ValueError(f"bench --only {only!r} is no regular expression: {problem}.") from None
    return [case for case in cases if re.search(only, f"{case.title} {'×'.join(map(str, case.shape))} {case.group}")]
