"""One case, checked, then measured: ours, torch's, the memory's limit, and whoever else is given."""

import re
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
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
    case: Case
    threads: int
    section: str = ""
    loop: str = ""
    limit: str = ""
    """What the memory could do at best: "copy" or "read"."""
    wrong: str | None = None
    """Why our answer is wrong; then nothing was timed."""
    refused: str | None = None
    """Why our loop cannot do this; then nothing was timed."""
    notes: dict[str, str] = field(default_factory=dict)
    """Of other contenders: why not timed."""
    bytes: int = 0
    """Read once and written once."""
    limit_bytes: int = 0
    first: float = 0.0
    """Seconds of the first call, in which kernels are compiled or loaded."""
    seconds: dict[str, TimeSpread] = field(default_factory=dict)
    ratios: dict[str, TimeSpread] = field(default_factory=dict)
    """Their time over ours: above 1 ours is faster."""
    kept: dict[str, SavedMemory] = field(default_factory=dict)
    """Memory that the forward keeps for the backward."""
    answers: int = 0

    @property
    def speed(self) -> float:
        """GB/s."""
        return self.bytes / self.seconds[OURS].median / 1e9

    @property
    def fraction(self) -> float:
        """Of the speed at which this array is copied, or read."""
        return self.speed / (self.limit_bytes / self.seconds[LIMIT].median / 1e9)

    def verdict(self, other: str = TORCH) -> str:
        """faster or slower, where three of four rounds say so; else alike."""
        found = self.ratios[other]
        if found.low > 1.02:
            return "faster"
        return "slower" if found.high < 0.98 else "alike"

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def read(cls, found: dict[str, Any]) -> "CaseResult":
        parts: dict[str, Any] = {
            "case": Case.read(found["case"]),
            "seconds": {name: TimeSpread(**one) for name, one in found["seconds"].items()},
            "ratios": {name: TimeSpread(**one) for name, one in found["ratios"].items()},
            "kept": {name: SavedMemory(**one) for name, one in found["kept"].items()},
        }
        return cls(**{**found, **parts})


def measure(
    case: Case,
    rounds: int,
    seconds: float,
    threads: int,
    others: Mapping[str, Contender] | None = None,
    section: str = "",
) -> CaseResult:
    """Check, then time. `others` are checked too; one that is not there, has no such pool or is wrong gets a note."""
    torch.set_num_threads(threads)
    job = CaseArrays(case, threads)
    keep = case.keep or case.direction == "backward"
    loop = loop_for(case.pool, job.x, job.place, job.parameters, keep)
    with _mode(case):
        began = time.perf_counter()
        try:
            run = gapstone(job)
            found = run()
        except NotImplementedError as error:
            return CaseResult(case, threads, section, loop, refused=str(error))
        first = time.perf_counter() - began
        theirs = torch_eager(job)
        dtype = job.x.dtype
        if reason := verify_answers.wrong(found, job.truth, theirs(), dtype) or _wrong_answer(job):
            return CaseResult(case, threads, section, loop, wrong=reason, first=first)
        runs, notes = {OURS: run, TORCH: theirs}, {}
        for name, contender in (others or {}).items():
            other, why = _ready(contender, job)
            if other:
                runs[name] = other
            else:
                notes[name] = why
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
        seconds={name: spread(taken) for name, taken in samples.items()},
        ratios={name: ratio(taken, samples[OURS]) for name, taken in samples.items() if name not in (OURS, LIMIT)},
        kept=_kept(job),
        answers=job.answers,
    )


def _wrong_answer(job: CaseArrays) -> str | None:
    """The answers of a forward that keeps what its backward needs: another kernel than the one without."""
    if job.case.direction == "forward":
        return None
    with torch.no_grad():
        right = eager_pools.formula(job.case, job.mask)
        truth = right(job.x.double(), *([] if job.learned is None else [job.learned.double()]))
        plain = job.torch_answer(job.x)
    reason = verify_answers.wrong(job.answer(job.x.detach().requires_grad_()).detach(), (truth,), plain, job.x.dtype)
    return f"the forward that keeps is {reason}" if reason else None


def _ready(contender: Contender, job: CaseArrays) -> tuple[Run | None, str]:
    """Its call, if its answer is right; else why not. An hour of measuring does not end because one of them fails."""
    try:
        run = contender(job)
        why = verify_answers.unlike(run(), job.truth, job.x.dtype)
        return (None, f"wrong: {why}") if why else (run, "")
    except (NotImplementedError, ImportError) as error:
        return None, str(error)
    except Exception as error:
        return None, f"failed: {type(error).__name__}: {str(error).partition(chr(10))[0][:80]}"


def _mode(case: Case) -> AbstractContextManager[Any]:
    return torch.inference_mode() if case.direction == "forward" else nullcontext()


def _limit(job: CaseArrays) -> tuple[str, Run, int]:
    """Reading the map for pools of whole maps, copying it for the rest: bytes that float32 kernels move."""
    flat = torch.empty(0).set_(job.x.untyped_storage())
    if job.case.window is None and job.case.direction == "forward":
        return "read", flat.sum, flat.nbytes
    copy = torch.empty_like(flat)
    return "copy", lambda: copy.copy_(flat), 2 * flat.nbytes


def _moved(job: CaseArrays) -> int:
    """What the work itself asks for, whoever does it: not what a contender keeps beside."""
    size = job.x.element_size()
    moved = (job.x.numel() + job.answers) * size
    again = job.case.direction == "backward" and looks_at_x(job.case.pool)
    return moved + (job.x.numel() * size if again else 0)


def _kept(job: CaseArrays) -> dict[str, SavedMemory]:
    """Of the forward whose backward is measured."""
    if job.case.direction == "forward":
        return {}
    return {OURS: saved_memory_of(job.answer, job.x), TORCH: saved_memory_of(job.torch_answer, job.x)}


def select(cases: list[Case], only: str) -> list[Case]:
    """Those whose title, map, layout and direction hold the pattern."""
    try:
        re.compile(only)
    except re.error as problem:
        raise ValueError(f"bench --only {only!r} is no regular expression: {problem}.") from None
    return [case for case in cases if re.search(only, f"{case.title} {'×'.join(map(str, case.shape))} {case.group}")]
