"""Items of a Dataset whose transforms draw random numbers, drawn by a seed: the same one gives the same image."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from gapstone.runtime.code_digest import Generator, generators_in


class SeededItems:
    """A Dataset with `draw(index, seed)`, whatever generators of random numbers its transforms use.

        >>> items = SeededItems(dataset)
        >>> with items.random_state_kept():
        ...     image, label = items.draw(5, (0, 1))

    Those of `random`, `numpy.random` and `torch` are seeded, and all that the Dataset, its transforms and their code
    hold, as albumentations do.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        self.generators = generators_in(dataset)

    def draw(self, index: int, seed: Sequence[int]) -> Any:
        """The item at `index`, as the Dataset gives it."""
        self.seed((*seed, index))
        return self.dataset[index]

    def seed(self, entropy: Sequence[int]) -> None:
        """Seed all generators; those of the Dataset's own each by other numbers."""
        words = np.random.SeedSequence(entropy).generate_state(2 * len(self.generators) + 4, np.uint64).tolist()
        random.seed(words[0])
        np.random.seed(words[1] & 0xFFFFFFFF)  # noqa: NPY002 (what users' transforms draw from)
        torch.default_generator.manual_seed(words[2])
        for generator, low, high in zip(self.generators, words[4::2], words[5::2], strict=True):
            _seed(generator, low, high)

    @contextmanager
    def random_state_kept(self) -> Iterator[None]:
        """What is seeded within does not change the random numbers that anything draws afterwards."""
        states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
        own = [_state(generator) for generator in self.generators]
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002
            torch.set_rng_state(states[2])
            for generator, state in zip(self.generators, own, strict=True):
                _restore(generator, state)


def _seed(generator: Generator, word: int, high: int) -> None:
    if isinstance(generator, np.random.Generator):
        bits = generator.bit_generator
        if isinstance(bits, np.random.PCG64):  # ten times faster than a new one, and a pipeline may have twenty
            stream: Any = {"state": word << 64 | high, "inc": high | 1}
            bits.state = {"bit_generator": "PCG64", "state": stream, "has_uint32": 0, "uinteger": 0}
        else:
            bits.state = type(bits)(word).state
    elif isinstance(generator, np.random.RandomState):
        generator.seed(word & 0xFFFFFFFF)
    elif isinstance(generator, random.Random):
        generator.seed(word)
    else:
        generator.manual_seed(word)


def _state(generator: Generator) -> Any:
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    return generator.getstate() if isinstance(generator, random.Random) else generator.get_state()


def _restore(generator: Generator, state: Any) -> None:
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    elif isinstance(generator, random.Random):
        generator.setstate(state)
    else:
        generator.set_state(state)
