"""What a user of the library writes, for mypy: nothing here runs. (pyright finds nothing either.)"""

import numpy as np
import torch
from torch import nn

import gapstone as gs


class MyHead(nn.Module):
    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.out = nn.Linear(channels, classes)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.out(maps.mean((2, 3)))
        return logits


def log(ended: object) -> None:
    print(ended)


def compared() -> float | None:
    result = gs.compare(
        "photos/",
        backbone=lambda: nn.Sequential(nn.Conv2d(3, 8, 3)),
        heads=["gap", {"mine": lambda channels, classes, size: MyHead(channels, classes)}],
        metric="auroc",
        on_epoch=log,
        trackers=["tensorboard", gs.trackers.TensorBoard("runs/tb")],
    )
    interval: tuple[float, float] | None = result.pairs["mine"].interval
    result.heads.frame().sort_values("accuracy")
    result.plot("shift").savefig("shift.svg")
    return result["gap"].accuracy.mean if interval else None


def trained() -> gs.Classifier:
    model = gs.train("photos/", "gem:p=learned", backbone="nin", on_epoch=log)
    gs.evaluate(["old.safetensors", model], (np.zeros((2, 4, 4)), [0, 1]))
    tested: gs.Evaluation = gs.evaluate({"old": "old.safetensors", "new": model}, "photos/")
    better: bool = tested.pairs[0].verdict == "better"
    for one in gs.predict(model, ["a.jpg", np.zeros((4, 4), np.uint8)]):
        label: str | None = one.label
        p: float = one.probabilities["cat"]
        print(label, p, better)
    refused: str | None = gs.check("photos/").refused
    print(refused, gs.explain(model, torch.rand(1, 3, 32, 32), top_k=1).maps)
    return model


def pooled() -> torch.Tensor:
    net = gs.swap_head(nn.Sequential(nn.Conv2d(3, 8, 3)), "gap")
    return gs.pool(net(torch.rand(2, 3, 7, 7)), "gem", p=3)
