"""A tiny network with random weights, and pictures of noise and shapes."""

import numpy as np
import torch
from PIL import Image

import gapstone as gs
from gapstone.images.preprocessing import Preprocessing

LABELS = ("cat", "dog", "tench, Tinca tinca", "7")


def make_model(path, head="gap", seed=0, size=(32, 32), stored=(32, 32)):
    torch.manual_seed(seed)
    preprocessing = Preprocessing(3, size, stored, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = gs.Classifier("nin", head, LABELS, preprocessing)
    model.save(path)
    return path


def make_pictures(folder, count, size=(40, 56), seed=0):
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for i in range(count):
        pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        pixels[: size[0] // 2] = i * 13 % 256
        Image.fromarray(pixels).save(folder / f"p{i:03d}.png")
    return folder
