"""Every `>>>` example of the docstrings and pages runs, and gives what it says."""

from collections import Counter
from importlib import import_module

import pytest
from PIL import ImageShow

from gapstone.pools import POOLS
from tests.docs import world
from tests.docs.examples import ROOT, SOURCE, Text, docstrings, fits, page, run

PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
FOLDERS = sorted({path.parent for path in (SOURCE / "gapstone").rglob("*.py")})

BUILD = "from gapstone.nets import build"
BIG = "images = torch.rand(2, 3, 224, 224)"
TOKENS = (
    "from gapstone.heads import Reads; from gapstone.models.classifier import Classifier; "
    "from gapstone.images.preprocessing import Preprocessing"
)
DATASET = "dataset = [(np.full((224, 224, 3), k, np.uint8), k % 2) for k in range(9)]"
COMPARED = "from tests.docs.world import compared; result = compared()"
EVALUATED = "from tests.docs.world import evaluated; found = evaluated()"
BOARD = (
    "import tifffile; tifffile.imwrite('board.tif', np.zeros((96, 128, 3), np.uint8), tile=(64, 64), photometric='rgb')"
)
SETUP = {
    "stream": "import torchvision; " + BOARD,
    "Streamed.sheet": "streamed = gs.stream(gs.load('photos.safetensors'), np.zeros((64, 64, 3), np.uint8))",
    "as_toml": "from gapstone.training.training_data import TrainOptions",
    "Augment": "batch = np.zeros((64, 40, 40, 3), np.uint8)",
    "Boxes": "map = np.random.rand(480, 640)",
    "ArithmeticCounter": "import torchvision",
    "DrawnImages": DATASET,
    "SeededItems": DATASET,
    "Evidence": "explained = gs.explain(model, images, top_k=1)",
    "Explanation": "import torchvision; model = torchvision.models.resnet18().eval(); "
    "images = torch.rand(16, 3, 224, 224)",
    "Explanation.against": "explained = gs.explain(model, images[:2], labels=('cat', 'fox'))",
    "Explanation.centred": "explained = gs.explain(model, images)",
    "Explanation.contrast": "explained = gs.explain(model, images)",
    "Explanation.sheet": "explained = gs.explain(model, images, top_k=1)",
    "Features": f"{BUILD}; {BIG}",
    "BackboneOutput": f"{TOKENS}; preprocessing = Preprocessing(3, (160, 160), (160, 160), (0.5,) * 3, (0.5,) * 3); "
    "model, images = Classifier('timm:test_vit', 'cls+gap', ('cat', 'dog'), preprocessing), torch.rand(2, 3, 160, 160)",
    "Features.read": f"{BUILD}; {TOKENS}; images = torch.rand(2, 3, 224, 224)",
    "prefix_tokens": f"{BUILD}; from gapstone.nets.prefix_tokens import prefix_tokens; "
    "vit, images = build('timm:test_vit').net, torch.rand(2, 3, 160, 160)",
    "FoldedNorms": f"{BUILD}; from copy import deepcopy; from gapstone.tracing.folded_norms import fold_norms; "
    "features = build('nin').eval(); exact = deepcopy(features).double(); "
    "images, other_images = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 40, 40)",
    "GoogLeNet": f"{BUILD}; {BIG}; y = labels[:2]; head = gs.Head('gap', 1024, 10); "
    "from torch.nn.functional import cross_entropy",
    "InceptionResNetV1": BUILD,
    "InceptionV4": BUILD,
    "Inspection": "import torchvision",
    "Localisation": "pictures = [(np.random.rand(32, 32), [(2, 2, 20, 20)])]; "
    "validation, test, part, other_part = (Localisation() for _ in range(4)); "
    "[scores.add(*pictures[0]) for scores in (validation, test, part, other_part)]",
    "Nin": BUILD,
    "NinImageNet": BUILD,
    "NinPaper": BUILD,
    "ResNet": BUILD,
    "TimmFeatures": BUILD,
    "Vgg": BUILD,
    "file_metadata": "from gapstone import open_model",
    "accelerate": "import torchvision",
    "accelerated": "import torchvision",
    "described": "image = None",
    "advise": "from gapstone.statistics.difference import crossed; rng = np.random.default_rng(0); "
    "hard = rng.random(842); gap, fc = (hard + 0.2 * rng.random((5, 842)) < limit for limit in (1.02, 1.01))",
    "share_interval": "correct_0, correct_1, correct_2 = np.random.default_rng(0).random((3, 500)) < 0.92",
    "check_pool": "from dataclasses import replace; from tests.testing.own_pools import HARMONIC; "
    "harmonic = replace(HARMONIC, name='mine')",
    "check_input": "path = Path('a.jpg')",
    "cost": "labels = tuple(map(str, range(1000))); "
    "preprocessing = type(preprocessing)(3, (224, 224), (256, 256), (0.5,) * 3, (0.2,) * 3)",
    "deletion": "image, map = images[0], np.random.rand(32, 32); "
    "model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 5)).eval()",
    "dry_run": BUILD,
    "explain": "import torchvision",
    "head_of": "import torchvision",
    "in_words": "from gapstone.statistics.metrics import METRICS",
    "inspect": "import torchvision",
    "last_stage": "import timm; resnet = timm.create_model('resnet18')",
    "logits_and_maps": "from gapstone import open_model",
    "images_at_once": BUILD,
    "map_size": BUILD,
    "mixed_sizes": "import torchvision",
    "path_in_errors": "import io; file, content = io.StringIO(), '{}'",
    "on_meta": "from gapstone import nets",
    "open_input": "path = Path('a.jpg')",
    "outputs": f"{BUILD}; features = build('nin').eval(); images = [torch.rand(3, 40, 32), torch.rand(3, 32, 32)]",
    "pxap": "maps, masks = [np.random.rand(9, 9)], [np.eye(9, dtype=bool)]; ignores = [np.zeros((9, 9), bool)]",
    "register_timm": "import gapstone.nets, timm",
    "style": "from matplotlib.figure import Figure",
    "swap_head": "import torchvision",
    "swapped": "import torchvision",
    "sweep": "map = np.random.rand(100, 100)",
    **dict.fromkeys(
        (
            "Comparison",
            "Comparison.open",
            "Comparison.predictions",
            "Comparison.plot",
            "Comparison.table",
            "Comparison.save_figures",
            "Comparison.maps",
            "Comparison.report",
            "Comparison.model",
            "HeadResult",
            "Pair",
            "TrialResult",
            "MeanOfTrials",
            "Entries",
            "Entries.frame",
            "model_of",
        ),
        COMPARED,
    ),
    **dict.fromkeys(("Evaluation", "Evaluation.open", "Evaluation.predictions", "Evaluation.report"), EVALUATED),
    **dict.fromkeys(("MeasuredNumber", "ModelResult", "ModelDifference"), EVALUATED),
    "unwrapped": "w, b = torch.rand(2, 2), torch.rand(2)",
}
"""By docstring: what its examples take from around them."""

LONG = "trains a network, or takes longer than all other examples together"
FILES = "reads large files of weights that others published"
SERVER = "starts a server or processes, and leaves them running"
WRITTEN = "reads a file that an example of another page wrote"
FRAGMENT = "a call in the middle of a run, with values that only such a run has"
EXCLUDED = {
    "Streamed": FRAGMENT,
    "Bars": FRAGMENT,
    "BlockDigest": FRAGMENT,
    "Checkpoint": FILES,
    "Classifier": FRAGMENT,
    "MLflow": LONG,
    "TensorBoard": LONG,
    "Tracker": LONG,
    "Wandb": LONG,
    "OwnFeatures": FRAGMENT,
    "load": FRAGMENT,
    "DrawnRows": FRAGMENT,
    "Explainer": FRAGMENT,
    "HeadCopies": FRAGMENT,
    "HfFeatures": FILES,
    "InMemory": FRAGMENT,
    "NearDuplicates": FRAGMENT,
    "LinearDescent": FRAGMENT,
    "ObjectBoxes.described": FRAGMENT,
    "OnDisk": FRAGMENT,
    "Readers": SERVER,
    "Ridge": FRAGMENT,
    "SampleSpace": FRAGMENT,
    "WorkerProcess": SERVER,
    "_interval": FRAGMENT,
    "_said": FRAGMENT,
    "about_intervals": FRAGMENT,
    "against": FRAGMENT,
    "compare": LONG,
    "compare_pairs": FRAGMENT,
    "compared": FRAGMENT,
    "convert": LONG,
    "explain_files": LONG,
    "export": LONG,
    "finetune": LONG,
    "groups_said": FRAGMENT,
    "compute_rows": FRAGMENT,
    "logistic": FRAGMENT,
    "own_folder": FRAGMENT,
    "pages": FRAGMENT,
    "plan": FRAGMENT,
    "tune_head": FRAGMENT,
    "read_checkpoint": FILES,
    "remarks": FRAGMENT,
    "sensitivity": FRAGMENT,
    "sentences": FRAGMENT,
    "serve": SERVER,
    "side_by_side": FRAGMENT,
    "stoppable": FRAGMENT,
    "take_turns": FRAGMENT,
    "train": LONG,
    "without_working_folder": SERVER,
    "evaluate": LONG,
    "headline": FRAGMENT,
    "pair_sentence": FRAGMENT,
    "without_seen": FRAGMENT,
    "write": FRAGMENT,
    "with_groups": FRAGMENT,
    "write_onnx": WRITTEN,
    "write_pt2": WRITTEN,
}
"""By docstring: why its examples do not run here. All others run."""

pytestmark = pytest.mark.xdist_group("examples")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with the files that examples name."""
    folder = tmp_path_factory.mktemp("examples")
    world.make_files(folder)
    return folder


@pytest.fixture
def names(files, monkeypatch, pytestconfig):
    """The working folder of the examples, and the names they see."""
    monkeypatch.chdir(files)
    if not pytestconfig.getoption("--all-kernels"):  # 16 kernels; quick: tests/testing/test_check_pool.py
        monkeypatch.setattr(import_module("gapstone.testing.check_pool"), "_check_compiled", lambda *pool: None)
    monkeypatch.setattr(ImageShow, "show", lambda *picture: True)  # opens a window
    return world.names()


def texts(folder) -> list[Text]:
    return [text for file in sorted(folder.glob("*.py")) for text in docstrings(file)]


@pytest.fixture(autouse=True)
def own_pools_go(pools_stay):
    """Examples that register a pool leave it to the reader's session, not to the next test."""
    before = dict(POOLS)
    yield
    for name in POOLS.keys() - before.keys():
        del POOLS[name]


@pytest.mark.parametrize(
    "folder",
    # examples of large networks; quick: the tests of these rooms
    [
        pytest.param(folder, marks=pytest.mark.slow)
        if folder.name in ("nets", "swapping", "inspecting", "maps")
        else folder
        for folder in FOLDERS
    ],
    ids=lambda folder: str(folder.relative_to(SOURCE)),
)
def test_the_examples_of_a_folder(folder, names):
    wanted = [text for text in texts(folder) if text.name not in EXCLUDED]
    wrong = [said for text in wanted if (said := run(text, names, SETUP.get(text.name, "")))]
    assert not wrong, f"{len(wrong)} of {len(wanted)}:\n" + "\n".join(wrong)


@pytest.mark.parametrize("file", PAGES, ids=lambda file: file.name)
def test_the_examples_of_a_page(file, names):
    wrong = [said for text in page(file) if (said := run(text, names))]
    assert not wrong, "\n".join(wrong)


def test_the_lists_name_docstrings_that_are_there():
    known = Counter(text.name for folder in FOLDERS for text in texts(folder))
    stale = sorted((SETUP.keys() | EXCLUDED.keys()) - known.keys())
    assert not stale
    assert not SETUP.keys() & EXCLUDED.keys()
    assert len(EXCLUDED) < 0.25 * known.total()


def test_what_fits():
    assert fits("(0.24, 'a …')", "(0.2413,\n 'a word')")
    assert fits("ValueError: size 3 …", "ValueError: size 3 is too small\n")
    assert not fits("0.24", "0.31")
    assert not fits("torch.Size([2, 512])", "torch.Size([2, 51])")
    assert not fits("True", "False")
