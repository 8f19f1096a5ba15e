"""What goes with the old head, and what stays because nothing came of it."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gapstone.heads import Head
from gapstone.swapping import swap_head, swapped


class Net(nn.Module):
    """With a head, and with parts that no forward pass calls."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.drop, self.door = nn.Conv2d(3, 8, 3, padding=1), nn.Dropout(0.1), nn.Identity()
        self.fc, self.last = nn.Linear(8, 6), nn.Linear(6, 5)
        self.idle, self.spare = nn.Linear(2, 2), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = F.adaptive_avg_pool2d(F.relu(self.conv(x)), 1).flatten(1)
        return self.last(self.door(self.drop(self.fc(x))))


def test_what_is_cut_and_what_stays():
    """Cut is what ran after the map, and what would only be saved for nothing; a layer without numbers that never ran
    is somebody's."""
    new = swap_head(Net().eval(), "gmp", images=torch.randn(2, 3, 12, 12))
    report = swapped(new)
    assert {cut.module for cut in report.cut} == {"fc", "drop", "last", "idle"}
    kept = dict(new.named_modules())
    assert any(type(module) is nn.ReLU and name.endswith("spare") for name, module in kept.items())
    assert new(torch.randn(4, 3, 20, 14)).shape == (4, 5)


def test_the_copy_is_another_and_the_old_one_is_whole():
    old = Net().eval()
    x = torch.randn(2, 3, 12, 12)
    before = old(x).detach()
    new = swap_head(old, "gap", images=x, num_classes=3)
    assert new(x).shape == (2, 3)
    assert torch.equal(old(x), before)
    assert swapped(new).before > swapped(new).after


class Tokens(nn.Module):
    """Patches in a row, mixed, their mean; `channels_last`: (N, tokens, C), or (N, C, tokens)."""

    def __init__(self, channels_last: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patch, self.mix = nn.Conv2d(3, 8, 4, stride=4), nn.Linear(8, 8) if channels_last else nn.Conv1d(8, 8, 1)
        self.fc, self.channels_last = nn.Linear(8, 5), channels_last

    def forward(self, x: Tensor) -> Tensor:
        row = self.patch(x).flatten(2)
        row = F.gelu(self.mix(row.transpose(1, 2) if self.channels_last else row))
        return self.fc(row.mean(1 if self.channels_last else 2))


@pytest.mark.parametrize("channels_last", [True, False])
def test_tokens_without_a_class_token_are_a_grid_again(channels_last):
    old, x = Tokens(channels_last).eval(), torch.randn(2, 3, 16, 24)
    new = swap_head(old, "gap", images=x)
    assert swapped(new).cells == (4, 6)
    with torch.no_grad():
        (head,) = (module for module in new.modules() if isinstance(module, Head))
        head.classifier[-1].load_state_dict(old.fc.state_dict())
        torch.testing.assert_close(new(x), old(x))
        half = torch.randn(2, 3, 8, 12)
        torch.testing.assert_close(new(half), old(half))
    with pytest.raises(ValueError, match="give images of those proportions"):
        new(torch.randn(2, 3, 24, 16))
