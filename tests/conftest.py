"""What every test shares: where the real images are; one thread, so that sums repeat and cores are not fought for."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before anything imports torch; processes that tests start inherit it

# kernels are waited for: else it is a matter of time which loop a test has tried
os.environ["GAPSTONE_WAIT_FOR_KERNELS"] = "1"

import gc
import random
import signal
import sys
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest

# a shell that starts this in the background has Ctrl-C ignored by all it starts: tests that interrupt need it
signal.signal(signal.SIGINT, signal.default_int_handler)

DATA = Path(os.environ.get("GAPSTONE_TEST_DATA", Path(__file__).parents[1] / ".." / "shared" / "data")).resolve()


def pytest_addoption(parser):
    parser.addoption("--seed", type=int, default=0, help="of every random number that tests draw")
    parser.addoption(
        "--all-kernels", action="store_true", help="compile what each call is chosen; else: fixture chosen_kernels"
    )


def seed(config, what):
    """Seeded by what comes next, whatever ran before it in this process: a test alone draws the same numbers.

    Called before each fixture, too.
    """
    number = zlib.crc32(f"{config.getoption('--seed')} {what}".encode("utf-8", "backslashreplace"))
    random.seed(number)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(number)
    if (torch := sys.modules.get("torch")) is not None and hasattr(torch, "default_generator"):
        # not torch.manual_seed: it notes the whole stack for each kind of device, which took a tenth of all tests' time
        torch.default_generator.manual_seed(number)
        if torch.cuda.is_initialized():
            torch.cuda.manual_seed_all(number)
        # a worker's job that a test ran in this process has set its own, and other threads give other last bits
        if torch.get_num_threads() != 1:
            torch.set_num_threads(1)


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


@pytest.fixture(autouse=True)
def environment_stays():
    """What a test leaves in the environment, every later test of its worker has, and its processes."""
    before = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    yield
    changed = [name for name, value in before.items() if os.environ.get(name) != value]
    # libraries add variables of their own when they are imported
    changed += [name for name in os.environ if name.startswith(("PYTHON", "GAPSTONE")) and name not in before]
    for name in changed:
        os.environ.pop(name, None)
    os.environ.update(before)
    assert not changed, f"the test leaves other variables of the environment: {changed}"


@pytest.fixture(autouse=True)
def pools_stay():
    """A pool that a test registers and leaves has its name taken in every later test of its worker."""
    from gapstone.pools import POOLS

    before = dict(POOLS)
    yield
    left = sorted(POOLS.keys() - before.keys())
    for name in left:
        del POOLS[name]
    assert not left, f"the test leaves pools of its own: {left}"


@pytest.fixture(autouse=True)
def chosen_kernels(environment_stays, pools_stay, request, monkeypatch):
    """A kernel takes 1 to 8 s to compile, and serves one pool, one type and one kind of region. In `make test` only
    tests that call a compiled loop by its name (tests/tuned, tests/contract) or are marked `kernels`, and processes
    that tests start, compile them; elsewhere torch answers, as it does for users while kernels are built, and in graphs
    and where somebody looks on the reference, with the same operator. (Tests that go on in this process with what
    another one left are marked, too: both must take the same loops.) `make test-slow` runs every test once more with
    the kernels that are chosen for users."""
    if request.config.getoption("--all-kernels") or request.node.get_closest_marker("kernels"):
        return
    from gapstone.loops import background, operators
    from gapstone.loops.kernels import Kernels

    ask, pool = Kernels.__call__, operators.pool

    def chosen(self, kind):
        if background.defers():
            raise background.NotBuilt(kind)
        return ask(self, kind)

    by_name = "loop" in getattr(getattr(request.node, "callspec", None), "params", {})

    def by_reference(call, loop, x):
        return pool(call, loop if by_name else "reference", x)

    monkeypatch.setattr(operators, "pool", by_reference)
    monkeypatch.setattr(Kernels, "__call__", chosen)
    monkeypatch.setattr(background, "must_wait", lambda: False)


@pytest.fixture(scope="session")
def some(pytestconfig):
    """`some(samples, 20)`: the first so many of a longer list; in `make test-slow` all of them."""

    def chosen(values, most):
        return list(values) if pytestconfig.getoption("--all-kernels") else list(values)[:most]

    return chosen


TRIED: Counter[str] = Counter()


@pytest.fixture
def tried():
    """`tried["pool x region"] += 1`: printed when the run ends."""
    return TRIED


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """A file goes to one worker: else every worker makes what its fixtures make, and compiles its kernels."""
    for item in items:
        if _compiles(item):
            item.add_marker(pytest.mark.compiles)
        if item.path.parent.name == "examples" or (item.path.parent.name, item.path.name) == (
            "docs",
            "test_examples.py",
        ):
            item.add_marker(pytest.mark.examples)
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(str(item.path.relative_to(Path(__file__).parent))))
    # the longest begin first: else one worker has the last of them when the other one is done
    items.sort(key=lambda item: place_in_line(item.path.relative_to(Path(__file__).parent)))


def _compiles(item) -> bool:
    """Whether it tries compiled loops themselves, at a second or more for each kernel: `make test-kernels`."""
    room, name = item.path.parent.name, item.path.name
    by_name = getattr(getattr(item, "callspec", None), "params", {}).get("loop")
    return room == "tuned" or (room == "contract" and (name == "test_compiled_loop.py" or by_name == "compiled"))


def pytest_collection_finish():
    """Thousands of tests and all that they import stay: looking through them at each collection took a tenth of the
    time, and 2 s at each `gc.collect()`."""
    gc.collect()
    gc.freeze()


LONGEST = ("contract", "comparing", "docs/test_examples.py", "damage", "test_foreign_text.py", "export", "runtime",
           "test_cli.py", "tuned", "testing", "accelerating", "converting", "serve", "swapping", "nets", "explaining",
           "data")  # fmt: skip


def place_in_line(path):
    """`path`: below this folder."""
    names = path.as_posix(), path.parts[0]
    return next((place for place, name in enumerate(LONGEST) if name in names), len(LONGEST))


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
