"""Heads for several labels on a frozen backbone: which learning rates suit 3, 20 and 80 classes, and against whom.

    GAPSTONE_TEST_DATA=… python benchmarks/multi_label_training.py [--images 3000]

An image is a mosaic of four photos; each photo is of one of K groups of photos that look alike to the backbone (k-means
on what it makes of them), or of no class. So an image has up to four labels, and rare classes are rare: group k is
drawn as often as 1 / (k + 2). Compared are `compare`'s training with its grid, with biases that begin at 0 and at the
classes' log-odds, the mean of binary cross-entropy instead of the sum, and scikit-learn's logistic regression of each
class with the penalty that validation images choose. mAP (and loss) are of test images.
"""

import argparse
import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score

import gapstone as gs
from gapstone.comparing.feature_scale import FeatureScale
from gapstone.comparing.linear_sgd import LinearDescent
from gapstone.comparing.tuning import DECAYS, RATES, epochs_on_features
from gapstone.images.preprocessing import Preprocessing
from gapstone.nets import pretrained_input
from gapstone.training.choose_backbone import DEFAULT
from gapstone.training.loop import TrainSettings, shuffled
from gapstone.training.losses import labels_tensor, log_odds, mean_loss

TILE, PER_IMAGE, SHARE_OF_CLASSES = 112, 4, 0.5


def photos(folder):
    """All photos of the set, cut to a square of TILE px."""
    tiles = []
    for path in sorted((folder / "flowers128").glob("*/*/*.jpg"))[::2]:
        photo = Image.open(path).convert("RGB")
        side = min(photo.size)
        left, top = (photo.width - side) // 2, (photo.height - side) // 2
        tiles.append(np.asarray(photo.resize((TILE, TILE), box=(left, top, left + side, top + side))))
    return np.stack(tiles)


@torch.inference_mode()
def features(model, images):
    parts = [
        model.features(model.preprocessing.normalise(torch.from_numpy(images[first : first + 16]))).mean((2, 3))
        for first in range(0, len(images), 16)
    ]
    return torch.cat(parts)


def mosaics(tiles, groups, classes, count, random):
    """(images (N, 2 · TILE, 2 · TILE, 3), labels (N, K))."""
    share = 1 / (np.arange(classes) + 2)
    images = np.empty((count, 2 * TILE, 2 * TILE, 3), np.uint8)
    labels = np.zeros((count, classes), bool)
    other = np.flatnonzero(groups >= classes)
    for i in range(count):
        for place in range(PER_IMAGE):
            if random.random() < SHARE_OF_CLASSES:
                k = random.choice(classes, p=share / share.sum())
                tile, labels[i, k] = random.choice(np.flatnonzero(groups == k)), True
            else:
                tile = random.choice(other)
            row, column = TILE * (place // 2), TILE * (place % 2)
            images[i, row : row + TILE, column : column + TILE] = tiles[tile]
    return images, labels


def scores(logits, labels):
    """(loss summed over classes, mAP over classes that the images have)."""
    some = labels.any(0)
    return mean_loss(logits, labels_tensor(labels)).item(), average_precision_score(labels[:, some], logits[:, some])


def descend(x, labels, parts, rates, begin, divided=False):
    """(validation loss, (loss, mAP) of test images) of each rate in its best epoch, with the better decay."""
    train, validation, test = parts
    scale, classes = FeatureScale.of([x[train]]), labels.shape[1]
    points = [(rate / (classes if divided else 1), decay) for rate in rates for decay in DECAYS]
    settings = TrainSettings(epochs=epochs_on_features(len(train)))
    run = LinearDescent(classes, scale, points, settings, len(train), begin=log_odds(labels[train]) if begin else None)
    best = [(np.inf, None)] * len(points)
    for epoch in range(settings.epochs):
        order = shuffled(train, settings.batch_size, np.random.default_rng((0, epoch)))
        run.train_epoch((x[rows], labels_tensor(labels[rows])) for rows in order)
        held, tested = run.logits(x[validation]), run.logits(x[test])
        for number in range(len(points)):
            loss = mean_loss(held[number], labels_tensor(labels[validation])).item()
            if loss < best[number][0]:
                best[number] = loss, scores(tested[number], labels[test])
    pairs = [best[first : first + len(DECAYS)] for first in range(0, len(points), len(DECAYS))]
    return [min(pair, key=lambda one: one[0]) for pair in pairs]


def one_vs_rest(x, labels, parts):
    """scikit-learn's logistic regression of each class; one penalty for all, chosen by validation loss."""
    train, validation, test = parts
    scaled = FeatureScale.of([x[train]])(x).numpy() * 30  # numbers of about 1, as lbfgs likes them
    best = (np.inf, None)
    for penalty in 10.0 ** np.arange(-4, 0.1):
        logits = np.zeros((len(x), labels.shape[1]))
        for k, column in enumerate(labels.T):
            if column[train].any():
                fitted = LogisticRegression(C=1 / (penalty * len(train)), max_iter=500).fit(
                    scaled[train], column[train]
                )
                logits[:, k] = fitted.decision_function(scaled)
            else:
                logits[:, k] = -7
        loss = mean_loss(torch.from_numpy(logits[validation]), labels_tensor(labels[validation])).item()
        if loss < best[0]:
            best = loss, scores(torch.from_numpy(logits[test]), labels[test])
    return best


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=3000)
    count = parser.parse_args().images
    folder = Path(os.environ["GAPSTONE_TEST_DATA"])
    expected = pretrained_input(DEFAULT)
    preprocessing = Preprocessing(3, (224, 224), (224, 224), expected.mean, expected.std)
    model = gs.Classifier(DEFAULT, "gap", ("a", "b"), preprocessing, pretrained=True).eval()
    tiles = photos(folder)
    of_tiles = features(model, tiles)
    rates = (0.1, *RATES, 100.0)
    print("| classes | labels per image | training | " + " | ".join(f"rate {rate:g}" for rate in rates) + " | chosen |")
    print("|---|---|---|" + "---|" * (len(rates) + 1))
    for classes in (3, 20, 80):
        random = np.random.default_rng(classes)
        groups = KMeans(classes + classes // 4 + 1, n_init=1, random_state=0).fit_predict(of_tiles)
        images, labels = mosaics(tiles, groups, classes, count, random)
        x = features(model, images)
        train, validation, test = np.split(np.arange(count), [count // 2, count * 2 // 3])
        parts = train, validation, test
        for words, begin, divided in (
            ("sum, biases from the log-odds", True, False),
            ("sum, biases from 0", False, False),
            ("mean over classes, biases from 0", False, True),
        ):
            found = descend(x, labels, parts, rates, begin, divided)
            inside = [one for rate, one in zip(rates, found, strict=True) if rate in RATES]
            chosen = min(inside, key=lambda one: one[0])[1]
            texts = [f"{100 * m:.1f} ({loss:.3f})" for _, (loss, m) in found]
            text = f"{100 * chosen[1]:.1f} ({chosen[0]:.3f})"
            print(f"| {classes} | {labels.sum(1).mean():.2f} | {words} | {' | '.join(texts)} | {text} |", flush=True)
        _, (loss, precision) = one_vs_rest(x, labels, parts)
        print(
            f"| {classes} | | scikit-learn, one for each class |"
            + " |" * len(rates)
            + f" {100 * precision:.1f} ({loss:.3f}) |",
            flush=True,
        )


if __name__ == "__main__":
    main()
