"""What every test shares: where the real images are; one thread, so that sums repeat and cores are not fought for."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before anything imports torch; processes that tests start inherit it

# kernels are waited for: else it is a matter of time which loop a test has tried
os.environ["GAPSTONE_WAIT_FOR_KERNELS"] = "1"

import random
import signal
import sys
import zlib
from collections import Counter
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path

import hypothesis
import pytest

# a shell that starts this in the background has Ctrl-C ignored by all it starts: tests that interrupt need it
signal.signal(signal.SIGINT, signal.default_int_handler)

DATA = Path(os.environ.get("GAPSTONE_TEST_DATA", Path(__file__).parents[1] / ".." / "shared" / "data")).resolve()


def pytest_addoption(parser):
    parser.addoption("--seed", type=int, default=0, help="of every random number that tests draw")


def seed(config, what):
    """Seeded by what comes next, whatever ran before it in this process: a test alone draws the same numbers."""
    number = zlib.crc32(f"{config.getoption('--seed')} {what}".encode("utf-8", "backslashreplace"))
    random.seed(number)
    for library, name in (("numpy", "random.seed"), ("torch", "manual_seed")):
        if library in sys.modules:
            attrgetter(name)(sys.modules[library])(number)


@pytest.hookimpl(tryfirst=True)
def pytest_collectstart(collector):
    if isinstance(collector, pytest.Module):
        seed(collector.config, collector.nodeid)


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef, request):
    seed(request.config, f"{fixturedef.baseid} {fixturedef.argname} {getattr(request, 'param', '')}")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item):
    seed(item.config, item.nodeid.partition("@")[0])


def pytest_configure(config):
    hypothesis.settings.register_profile("repeats", derandomize=True)
    if config.getoption("--hypothesis-seed") is None:
        hypothesis.settings.load_profile("repeats")


@pytest.fixture(scope="session")
def real_images() -> Callable[[str], Path]:
    """`real_images("mnist")` is the folder of that name, or a skip that says what is missing.

    The images are not part of the project. Set GAPSTONE_TEST_DATA to the folder that holds mnist, awkward, …
    """

    def find(name: str) -> Path:
        folder = DATA / name
        if not folder.exists():
            pytest.skip(f"needs the real images in {name!r}: set GAPSTONE_TEST_DATA to the folder that holds them")
        return folder

    return find


@pytest.fixture(params=["by the reference", pytest.param("as chosen", marks=pytest.mark.slow)])
def kernels(request, monkeypatch):
    """For tests of what arguments mean, over many windows: a tuned kernel serves one window and takes a second or two
    to compile. In `make test` the reference answers where a compiled loop would; `make test-slow` runs the same tests
    as the loops are chosen for users. That the loops agree is what test_pools.py and tests/tuned ask."""
    from gapstone import pooling
    from gapstone.accelerating import functional
    from gapstone.loops import eager
    from gapstone.loops.choose import Choice

    if request.param == "by the reference":
        choose, by = pooling.choose, pooling.by

        def chosen(*call):
            found = choose(*call)
            return Choice("torch", "the test says so") if found.loop in ("tuned", "numba") else found

        monkeypatch.setattr(pooling, "choose", chosen)
        monkeypatch.setattr(pooling, "_ready", {})  # calls whose loops were chosen before
        monkeypatch.setattr(functional, "by", lambda _loop, *call: by("torch", *call))
        monkeypatch.setattr(eager, "fits_both", lambda *_: False)
    return request.param


TRIED: Counter[str] = Counter()


@pytest.fixture
def tried():
    """`tried["pool x region"] += 1`: printed when the run ends."""
    return TRIED


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """A file goes to one worker: else every worker makes what its fixtures make, and compiles its kernels."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(str(item.path.relative_to(Path(__file__).parent))))


def pytest_sessionfinish(session):
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["tried"] = dict(TRIED)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error):
    """What a worker tried counts too."""
    TRIED.update(getattr(node, "workeroutput", {}).get("tried", {}))


def pytest_terminal_summary(terminalreporter):
    for what, count in sorted(TRIED.items()):
        terminalreporter.write_line(f"contract: {count:,} {what}")
