"""Later passes are traced from the last module before the map: what comes before runs as if nobody looked."""

import threading
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gapstone as gs
from gapstone.maps.explanation import Explanation
from gapstone.runtime import torch_internals
from gapstone.tracing import locate_head
from gapstone.tracing.trace import TapeRecorder

IMAGES = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """A backbone of modules and functions, a pool, and a linear layer."""

    def __init__(self, around: Callable[[], Any] = nullcontext, before: Callable[["Net", Tensor], None] | None = None):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(8, 5)
        self.around, self.before = around, before
        self.by_hand = False

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.first(x).relu()).relu().abs()
        if self.before is not None:
            self.before(self, x)
        with self.around():
            x = x.mean((2, 3)) if self.by_hand else self.pool(x).flatten(1)
            return self.fc(x)


def seen_calls(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> tuple[Explanation, int]:
    """(the maps, how many calls of the pass were traced)."""
    count = 0
    whole = TapeRecorder.call

    def call(self: TapeRecorder, *args: Any) -> Any:
        nonlocal count
        count += 1
        return whole(self, *args)

    with monkeypatch.context() as patched:
        patched.setattr(TapeRecorder, "call", call)
        return gs.explain(model, IMAGES), count


def expected(model: Net) -> Tensor:
    with torch.no_grad():
        x = model.second(model.first(IMAGES).relu()).relu().abs()
    return torch.einsum("kc,nchw->nkhw", model.fc.weight.detach(), x) / x[0, 0].numel()


def test_only_what_follows_the_module_is_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Net()
    first = gs.explain(model, IMAGES)
    again, count = seen_calls(model, monkeypatch)
    assert count < 8  # the pool, flatten and the linear layer, in torch's parts; the convolutions are not among them
    torch.testing.assert_close(again.maps, expected(model))
    torch.testing.assert_close(again.maps, first.maps)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_hook_of_the_users_own_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Net()
    model.pool.register_forward_pre_hook(lambda module, args: (args[0].neg().neg(),))
    gs.explain(model, IMAGES)
    again, count = seen_calls(model, monkeypatch)
    assert count < 10
    torch.testing.assert_close(again.maps, expected(model))


def test_another_thread_in_the_same_model_is_not_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    depths: list[int | None] = []

    def elsewhere(model: Net, x: Tensor) -> None:
        def run() -> None:
            model.pool(x)
            depths.append(torch_internals.function_modes())

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()

    model = Net(before=elsewhere)
    gs.explain(model, IMAGES)
    again, _ = seen_calls(model, monkeypatch)
    torch.testing.assert_close(again.maps, expected(model))
    assert depths == [0, 0]  # two passes: the module is called in the second as it was in the first
    assert torch_internals.function_modes() == 0


def test_within_another_mode_the_whole_pass_is_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Net(around=lambda: torch.device("cpu"))
    gs.explain(model, IMAGES)
    again, count = seen_calls(model, monkeypatch)
    assert count > 5
    torch.testing.assert_close(again.maps, expected(model))
    assert torch_internals.function_modes() == 0


def test_a_mode_that_begins_in_a_later_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Net()
    gs.explain(model, IMAGES)
    model.around = lambda: torch.device("cpu")
    for _ in range(2):
        torch.testing.assert_close(gs.explain(model, IMAGES).maps, expected(model))
        assert torch_internals.function_modes() == 0
    (location,) = locate_head._locations[model].values()
    assert location.entry is None or location.entry.module() is not model.pool


def test_an_error_of_the_head_ends_the_trace() -> None:
    model = Net()
    gs.explain(model, IMAGES)
    model.fc = nn.Linear(9, 5)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        gs.explain(model, IMAGES)
    assert torch_internals.function_modes() == 0
    assert not model.pool._forward_pre_hooks


def test_a_module_that_is_not_called_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Net()
    gs.explain(model, IMAGES)
    model.by_hand = True
    torch.testing.assert_close(gs.explain(model, IMAGES).maps, expected(model))
    again, _ = seen_calls(model, monkeypatch)
    torch.testing.assert_close(again.maps, expected(model))


def test_a_module_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Net()
    gs.explain(model, IMAGES)
    model.pool = nn.AdaptiveAvgPool2d(1)  # another one, called at the same place
    again, count = seen_calls(model, monkeypatch)
    torch.testing.assert_close(again.maps, expected(model))
    _, later = seen_calls(model, monkeypatch)
    assert later == count > 5  # all is traced, once, and not twice


def test_without_a_count_of_modes_the_whole_pass_is_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_internals, "_watching", None)
    model = Net()
    gs.explain(model, IMAGES)
    again, count = seen_calls(model, monkeypatch)
    assert count > 5
    torch.testing.assert_close(again.maps, expected(model))
    (location,) = locate_head._locations[model].values()
    assert location.entry is None
