"""A whole network that learns several labels: biases that begin at the classes' log-odds or as torch makes them.

    GAPSTONE_TEST_DATA=… python benchmarks/multi_label_networks.py [--seeds 3]

An image of 32 px is a mosaic of up to four handwritten digits of 16 px; digit k is drawn as often as 1 / (k + 2). NIN
with `gap` from random weights, 1,800 training images, 8 epochs; mAP of 1,200 test images; beside it a plain loop of
torch's (AdamW at 1e-3, the mean of BCEWithLogitsLoss).
"""

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import average_precision_score

import gapstone as gs
from gapstone.data.open_source import open_source
from gapstone.images.preprocessing import Preprocessing
from gapstone.training import loop
from gapstone.training.loop import TrainSettings, predict, train

CLASSES, TRAIN, VALIDATION, TEST = 10, np.arange(1800), np.arange(1800, 2200), np.arange(2200, 3400)
PREPROCESSING = Preprocessing(1, (32, 32), (32, 32), (0.1,), (0.25,))
EPOCHS, BATCH = 8, 64


@dataclass
class Mosaics:
    images: NDArray[np.uint8]
    labels: NDArray[np.bool_]


def mosaics():
    source = open_source(str(Path(os.environ["GAPSTONE_TEST_DATA"]) / "mnist"))
    tiles = {k: [] for k in range(CLASSES)}
    for row in np.random.default_rng(0).permutation(len(source))[:3000].tolist():
        digit = Image.fromarray(source.pixels(row)[..., 0]).resize((16, 16), Image.Resampling.BILINEAR)
        tiles[int(source.labels[row])].append(np.asarray(digit))
    random, share = np.random.default_rng(1), 1 / (np.arange(CLASSES) + 2)
    made = Mosaics(np.zeros((3400, 32, 32, 1), np.uint8), np.zeros((3400, CLASSES), bool))
    for image, labels in zip(made.images, made.labels, strict=True):
        for row, column in ((0, 0), (0, 16), (16, 0), (16, 16)):
            if random.random() < 0.4:
                k = random.choice(CLASSES, p=share / share.sum())
                image[row : row + 16, column : column + 16, 0] = tiles[k][random.integers(len(tiles[k]))]
                labels[k] = True
    return made


def network(seed):
    torch.manual_seed(seed)
    return gs.Classifier("nin", "gap", tuple(map(str, range(CLASSES))), PREPROCESSING, multi_label=True)


def plain(pictures, seed):
    """torch alone."""
    model = network(seed)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    x = PREPROCESSING.normalise(torch.from_numpy(pictures.images))
    y = torch.from_numpy(pictures.labels).float()
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(TRAIN)).split(BATCH):
            optimizer.zero_grad()
            F.binary_cross_entropy_with_logits(model.train()(x[rows]), y[rows]).backward()
            optimizer.step()
    return model.eval()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    seeds, pictures, begin = range(parser.parse_args().seeds), mosaics(), loop.begin_at
    print("| training | biases begin | training loss of the first epochs | mAP of each seed |\n|---|---|---|---|")

    def told(words, biases, trained):
        models, histories = zip(*trained, strict=True)
        scores = [predict(model, pictures, TEST).numpy() for model in models]
        found = [f"{100 * average_precision_score(pictures.labels[TEST], one):.1f}" for one in scores]
        losses = ", ".join(f"{loss:.2f}" for loss in histories[0].train_loss[:3]) if histories[0] else ""
        print(f"| {words} | {biases} | {losses} | {', '.join(found)} |", flush=True)

    for optimizer, rate in (("sgd", 0.05), ("sgd", 0.0125), ("sgd", 0.2), ("adamw", 1e-3)):
        for biases, function in (("at the log-odds", begin), ("as torch makes them", lambda head, log_odds: None)):
            loop.begin_at = function
            settings = TrainSettings(EPOCHS, BATCH, optimizer, rate)
            trained = []
            for seed in seeds:
                model = network(seed)
                trained.append((model, train(model, pictures, TRAIN, VALIDATION, settings, seed)))
            told(f"{optimizer}, rate {rate:g}", biases, trained)
    told(
        "plain torch, adamw, rate 0.001, mean over classes",
        "as torch makes them",
        [(plain(pictures, s), None) for s in seeds],
    )


if __name__ == "__main__":
    main()
