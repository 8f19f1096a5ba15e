"""gapstone: build the heads of image classifiers, compare them on your images, see what they look at.

>>> import torch, gapstone as gs
>>> gs.pool(torch.rand(2, 512, 14, 14), "gem", p=3).shape
torch.Size([2, 512])
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from gapstone import trackers as trackers
    from gapstone.accelerating import accelerate as accelerate
    from gapstone.accelerating import accelerated as accelerated
    from gapstone.fitting.fit_head import fit_head as fit_head
    from gapstone.heads import Head as Head
    from gapstone.inspecting import Inspection as Inspection
    from gapstone.inspecting.inspect import inspect as inspect
    from gapstone.library.check_images import check as check
    from gapstone.library.compare import compare as compare
    from gapstone.library.comparison import Comparison as Comparison
    from gapstone.library.evaluate_models import evaluate as evaluate
    from gapstone.library.evaluation import Evaluation as Evaluation
    from gapstone.library.predict_images import predict as predict
    from gapstone.library.stream import stream as stream
    from gapstone.library.train_classifier import train as train
    from gapstone.loops.background import wait_for_kernels as wait_for_kernels
    from gapstone.maps.explain import explain as explain
    from gapstone.maps.open_model import open_model as open_model
    from gapstone.models.classifier import Classifier as Classifier
    from gapstone.models.classifier import load as load
    from gapstone.pooling import Pool as Pool
    from gapstone.pooling import partial as partial
    from gapstone.pooling import pool as pool
    from gapstone.pooling import share as share
    from gapstone.pools import Definition as Definition
    from gapstone.pools.registration import register_pool as register_pool
    from gapstone.ragged import mixed_sizes as mixed_sizes
    from gapstone.regions import Boxes as Boxes
    from gapstone.regions import Grid as Grid
    from gapstone.regions import Mask as Mask
    from gapstone.regions import Pyramid as Pyramid
    from gapstone.regions import Segments as Segments
    from gapstone.regions import Whole as Whole
    from gapstone.regions import Window as Window
    from gapstone.swapping import swap_head as swap_head
    from gapstone.swapping import swapped as swapped

# the whole public surface; each name is imported when it is first used, so that `import gapstone` costs nothing
PUBLIC = {
    "Boxes": "gapstone.regions",
    "Classifier": "gapstone.models.classifier",
    "Comparison": "gapstone.library.comparison",
    "Definition": "gapstone.pools",
    "Evaluation": "gapstone.library.evaluation",
    "Grid": "gapstone.regions",
    "Head": "gapstone.heads",
    "Inspection": "gapstone.inspecting",
    "Mask": "gapstone.regions",
    "Pool": "gapstone.pooling",
    "Pyramid": "gapstone.regions",
    "Segments": "gapstone.regions",
    "Whole": "gapstone.regions",
    "Window": "gapstone.regions",
    "accelerate": "gapstone.accelerating",
    "accelerated": "gapstone.accelerating",
    "check": "gapstone.library.check_images",
    "compare": "gapstone.library.compare",
    "evaluate": "gapstone.library.evaluate_models",
    "explain": "gapstone.maps.explain",
    "fit_head": "gapstone.fitting.fit_head",
    "inspect": "gapstone.inspecting",
    "load": "gapstone.models.classifier",
    "mixed_sizes": "gapstone.ragged",
    "open_model": "gapstone.maps.open_model",
    "partial": "gapstone.pooling",
    "pool": "gapstone.pooling",
    "predict": "gapstone.library.predict_images",
    "register_pool": "gapstone.pools.registration",
    "share": "gapstone.pooling",
    "stream": "gapstone.library.stream",
    "swap_head": "gapstone.swapping",
    "swapped": "gapstone.swapping",
    "train": "gapstone.library.train_classifier",
    "wait_for_kernels": "gapstone.loops.background",
}

MODULES = ("trackers",)
"""Of names that are used as `gs.trackers.TensorBoard`."""

__all__ = [*PUBLIC, *MODULES, "__version__"]


if not TYPE_CHECKING:  # to mypy it would say that there is every name

    def __getattr__(name: str) -> Any:
        if name in MODULES:
            return import_module(f"gapstone.{name}")
        if name not in PUBLIC:
            raise AttributeError(f"module 'gapstone' has no attribute {name!r}")
        value = getattr(import_module(PUBLIC[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
