"""Formats results as lines of fixed width, so that each is printed when it is measured; losses are marked like wins."""

from rich.text import Text

from gapstone.bench.case_result import OURS, TORCH, CaseResult
from gapstone.bench.measure import TimeSpread
from gapstone.bench.saved_memory import SavedMemory

STYLES = {"slower": "bold red", "faster": "green"}
MARKS = {"slower": "◄ slower", "alike": "alike", "faster": ""}


def heading(result: CaseResult) -> str:
    columns = f"{'ours ms':>9}{'torch ms':>10}{'torch/ours':>12} {'quartiles':>23} {'GB/s':>6}{'limit':>11}  loop"
    title = f"{result.section}: {result.case.group}" if result.section else result.case.group
    return f"\n{title:44}{columns}{'        kept B/answer' if result.kept else ''}"


def line(result: CaseResult) -> Text:
    text = Text(f"  {result.case.title:26} {_shape(result):14} ", no_wrap=True)
    if result.wrong:
        return text.append(f"wrong: {result.wrong} ({result.loop}); not timed", "bold red")
    if result.refused:
        return text.append(f"not timed: {result.refused}", "dim")
    verdict = result.verdict()
    ours, theirs, ratio = result.seconds[OURS], result.seconds[TORCH], result.ratios[TORCH]
    text.append(f"{milliseconds(ours.median):>9}{milliseconds(theirs.median):>10}")
    text.append(f"{times(ratio):>11}  {MARKS[verdict]:8} {between(ratio):>15} ", STYLES.get(verdict, ""))
    text.append(f"{result.speed:>6.1f}{result.fraction:>6.0%} {result.limit:6}{result.loop}")
    if result.kept:
        text.append(" " * max(1, 12 - len(result.loop)) + f"{kept(result, OURS):>6} : {kept(result, TORCH)}")
    for name in result.ratios:
        if name != TORCH:
            slower = "◄" if result.verdict(name) == "slower" else ""
            text.append(f"  {name} ").append(times(result.ratios[name]) + slower, STYLES.get(result.verdict(name), ""))
    failures = [name for name, reason in result.notes.items() if reason.startswith(("wrong", "failed"))]
    text.append("".join(f"  {name} {result.notes[name]}" for name in failures), "yellow")
    if missing := [name for name in result.notes if name not in failures]:
        text.append(f"  –: {', '.join(missing)}", "dim")
    if ours.disturbed or theirs.disturbed:
        text.append("  ~", "yellow")
    return text


def summary(results: list[CaseResult]) -> list[str]:
    """Return lines with the number of wins and losses, and the wrong results."""
    timed = [result for result in results if result.ratios]
    verdicts = [result.verdict() for result in timed]
    native = sum(result.loop == "native" for result in timed)
    counts = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in ("faster", "alike", "slower"))
    lines = [f"{len(timed)} against torch eager: {counts}; {native} of them run torch's own kernel (native)."]
    wrong = [result for result in results if result.wrong]
    lines += [f"WRONG: {result.case.title}, {result.case.group}: {result.wrong}" for result in wrong]
    first = sum(result.first for result in results)
    if any(times.disturbed for result in timed for times in result.seconds.values()):
        lines.append(DISTURBED)
    lines.append(
        f"First calls, in which kernels are compiled or loaded from disk: {first:.1f} s in all, in no row above."
    )
    return lines


LEGEND = (
    "torch/ours: torch's time over ours, round by round: median and quartiles; below 1 torch is faster. "
    "GB/s: the map and the answers, read or written once. Limit: the share of the speed at which the same map is "
    "copied (or read) in the same rounds; work inside the cache can beat it. Kept: bytes per answer that the forward "
    "keeps for the backward, ours : torch's; +x: and the map, +y: and the answers."
)
DISTURBED = "~: too few samples without the system taking the processor away; all of them count there."


def milliseconds(seconds: float) -> str:
    """>>> milliseconds(0.00001234), milliseconds(0.1234)
    ('0.0123', '123')
    """
    value = seconds * 1e3
    return f"{value:.{4 if value < 0.1 else 3 if value < 1 else 2 if value < 10 else 1 if value < 100 else 0}f}"


def times(ratio: TimeSpread) -> str:
    return f"{factor(ratio.median)}×"


def between(ratio: TimeSpread) -> str:
    return f"{factor(ratio.low)} – {factor(ratio.high)}"


def factor(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def kept(result: CaseResult, who: str) -> str:
    memory: SavedMemory = result.kept[who]
    return f"{memory.beside / result.answers:.3g}" + "+x" * memory.x + "+y" * memory.answer


def _shape(result: CaseResult) -> str:
    return "×".join(map(str, result.case.shape))
