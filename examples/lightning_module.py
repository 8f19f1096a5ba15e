"""A head of gapstone in a LightningModule: python examples/lightning_module.py photos/"""

import sys

import lightning
import numpy as np
import torch
from torch.utils.data import DataLoader, Subset, random_split
from torchvision.datasets import ImageFolder

import gapstone as gs
from gapstone.images.preprocessing import Preprocessing

SEEN = Preprocessing(3, size=(64, 64), stored=(64, 64), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


def seen(picture: object) -> torch.Tensor:  # as the saved model will see it
    return SEEN.normalise(torch.from_numpy(SEEN.centre(SEEN.fit(np.array(picture))[None])))[0]


class Photos(lightning.LightningModule):
    def __init__(self, model: gs.Classifier) -> None:
        super().__init__()
        self.model = model

    def training_step(self, batch: list[torch.Tensor], number: int) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(self.model(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), 1e-3)


photos = ImageFolder(sys.argv[1])
train, test = random_split(photos, [0.8, 0.2], torch.Generator().manual_seed(0))
batches = DataLoader(Subset(ImageFolder(sys.argv[1], transform=seen), train.indices), 32, shuffle=True)
module = Photos(gs.Classifier("resnet18", "gem:p=learned", photos.classes, SEEN))
lightning.Trainer(max_epochs=5, enable_checkpointing=False, logger=False).fit(module, batches)
module.model.save("photos.safetensors")  # for gapstone predict, explain, evaluate, export, serve
print(gs.evaluate(module.model, test))
