"""`read_ahead` does the next piece of work in a thread while the last one is used."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")


def read_ahead(read: Callable[[Asked], Answer], asked: Iterable[Asked]) -> Iterator[Answer]:
    """`read` of each, in order, one ahead.

    >>> list(read_ahead(len, ["a", "bb"]))
    [1, 2]
    """
    left = iter(asked)
    with ThreadPoolExecutor(1, thread_name_prefix="read_ahead") as thread:
        ahead = [thread.submit(read, one) for one in [next(left, None)] if one is not None]
        while ahead:
            answer = ahead.pop().result()
            ahead = [thread.submit(read, one) for one in [next(left, None)] if one is not None]
            yield answer
