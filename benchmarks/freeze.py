"""Many heads for one pass: what `gapstone compare --freeze` costs against heads trained one by one.

    python benchmarks/freeze.py DATA [--size 112] [--limit 1200] [--epochs 20] [--backbone resnet18] [--json FILE]

CPU seconds of one thread, all measured in one run: the frozen backbone's pass over the images (written to
disk), the training of every head with every seed from what it kept (all candidates of its rate and decay), one epoch of
training (validation included) with the backbone run in each step. Weights are random: they change no time. Early
stopping is off.

* "from kept": the pass once, then all heads and seeds.
* "pass + one head": what the least possible comparison costs; from kept / this should stay near 1.
* "one by one, running": every head and seed runs the backbone in every epoch. EXTRAPOLATED from the one epoch measured.
* "one by one, keeping": every head and seed makes a pass of its own, and trains from that (the pass × heads × seeds).
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import torch
import torch._dynamo  # imported by the first optimizer; no part of its time
from safetensors.torch import save_file

from gapstone import nets
from gapstone.comparing.compare_request import CompareRequest
from gapstone.comparing.feature_cache import FeatureCache
from gapstone.comparing.feature_pass import backbone, compute_features
from gapstone.comparing.plan import ComparisonPlan, plan_comparison
from gapstone.comparing.trials import Trial, train_on_cache
from gapstone.training.loop import train
from gapstone.training.training_data import TrainOptions

SETS = {
    "8 pools without parameters": ("gap", "gmp", "gem", "gem:p=5", "lse", "lse:r=2", "avgmax", "catavgmax"),
    "8 of all kinds": ("gap", "gmp", "gem:p=learned", "lse", "nin", "fc", "fc:grid=2", "fc:64:dropout=0.5"),
}
SEEDS = 5


def planned(data: str, heads: tuple[str, ...], arguments: argparse.Namespace, folder: Path) -> ComparisonPlan:
    weights = folder / "trunk.safetensors"
    if not weights.exists():
        torch.manual_seed(0)
        save_file(nets.build(arguments.backbone).state_dict(), weights)
    choices = TrainOptions(
        data, backbone=arguments.backbone, size=str(arguments.size), limit=arguments.limit, epochs=arguments.epochs
    )
    out = folder / heads[-1].replace(":", "_")
    (out / "trials").mkdir(parents=True)
    request = CompareRequest(choices, heads, SEEDS, weights=weights, freeze=True).checked()
    return plan_comparison(request, out, lambda text: None, lambda name: lambda done, total: None)


def seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def measured(what: ComparisonPlan, folder: Path) -> dict[str, float]:
    torch.set_num_threads(1)
    store = what.prepared.store
    settings = replace(what.prepared.settings, patience=10**6)
    assert what.feature_pass is not None
    still = replace(
        what.feature_pass, robust=what.feature_pass.robust[:0]
    )  # what training needs: no moved or resized test images
    news: list[object] = []
    kept = folder / f"kept-{still.heads[-1].replace(':', '_')}"
    backbone(what.trials[0])(torch.rand(8, 3, *what.prepared.preprocessing.size))  # warm
    passed = seconds(lambda: compute_features(store.folder, kept, still, news.append))
    cache = next(item for item in news if isinstance(item, FeatureCache))
    bytes_kept = sum(path.stat().st_size for path in kept.glob("*.npy"))

    def train_head(t: Trial) -> None:
        train_on_cache(t, cache, store.labels)

    each = [seconds(partial(train_head, t)) for t in what.trials]
    trial = what.trials[0]
    model = backbone(trial)
    model.head.requires_grad_(True)
    trunk = model.features
    train_mode = model.train
    model.train = lambda mode=True: (train_mode(mode), trunk.eval())[0]  # type: ignore[method-assign]
    once = replace(settings, epochs=1)
    epoch = seconds(lambda: train(model, store, trial.train, trial.validation, once, 0))
    count = len(what.trials)
    total = passed + sum(each)
    return {
        "images": len(still.all),
        "precision": settings.precision,
        "kept_mb": bytes_kept / 1e6,
        "pass": passed,
        "training, one head (median)": statistics.median(each),
        "training, all heads and seeds": sum(each),
        "from kept": total,
        "pass + one head": passed + sum(each) / count,
        "from kept / (pass + one head)": total / (passed + sum(each) / count),
        "one epoch, backbone running": epoch,
        "one by one, running (extrapolated)": epoch * settings.epochs * count,
        "one by one, keeping": passed * count + sum(each),
        "one by one, running / from kept": epoch * settings.epochs * count / total,
        "one by one, keeping / from kept": (passed * count + sum(each)) / total,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="any DATA of gapstone's")
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--limit", type=int, default=1200)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    where = f"{platform.machine()}, torch {torch.__version__}, one thread, CPU seconds; {arguments.backbone}, "
    print(where + f"{arguments.size} px, {arguments.epochs} epochs, {SEEDS} seeds")
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, heads in SETS.items():
            found[name] = measured(planned(arguments.data, heads, arguments, Path(folder)), Path(folder))
            print(f"{name}: {', '.join(heads)}")
            for key, value in found[name].items():
                print(f"  {key:38} {value:10.2f}" if isinstance(value, float) else f"  {key:38} {value:>10}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"where": where, "found": found}, indent=1), "utf-8")


if __name__ == "__main__":
    main()
