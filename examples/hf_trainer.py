"""A head of gapstone in the Trainer of Hugging Face: python examples/hf_trainer.py photos/"""

import sys

import numpy as np
import torch
from datasets import load_dataset
from torch import nn
from transformers import Trainer, TrainingArguments

import gapstone as gs
from gapstone.images.preprocessing import Preprocessing

SEEN = Preprocessing(channels=3, size=(64, 64), stored=(64, 64), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


class ForTrainer(nn.Module):
    def __init__(self, model: gs.Classifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        logits = self.model(pixel_values)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def seen(batch: dict[str, list]) -> dict[str, list]:
    """The pictures as the saved model will see them."""
    pixels = SEEN.centre(np.stack([SEEN.fit(np.array(image.convert("RGB"))) for image in batch["image"]]))
    return {"pixel_values": list(SEEN.normalise(torch.from_numpy(pixels))), "labels": batch["label"]}


photos = load_dataset("imagefolder", data_dir=sys.argv[1], split="train").train_test_split(0.2, seed=0)
model = gs.Classifier("resnet18", "gem:p=learned", photos["train"].features["label"].names, SEEN)
how = TrainingArguments("trained", num_train_epochs=5, per_device_train_batch_size=32, remove_unused_columns=False,
                        report_to=[], save_strategy="no")  # fmt: skip
Trainer(ForTrainer(model), how, train_dataset=photos["train"].with_transform(seen)).train()
model.save("photos.safetensors")  # for gapstone predict, explain, evaluate, export, serve
print(gs.evaluate(model, photos["test"]))
