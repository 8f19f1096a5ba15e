"""Memory and CPU time of ResNet-18 on one large image: whole, and on bands of 32 rows. One thread.

python benchmarks/streamed_memory.py stream 16384
python benchmarks/streamed_memory.py whole 2048
"""

import resource
import sys
import time

import torch
import torchvision

from gapstone.streaming.row_pass import RowStream, play_bands
from gapstone.streaming.row_recorder import record_rows

ROWS = 32


def peak() -> float:
    """MB; of this process, so that each measurement needs its own."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@torch.no_grad()
def main(how: str, side: int) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = torchvision.models.resnet18(num_classes=5).eval()
    network(torch.rand(1, 3, 64, 64))
    before, start = peak(), time.process_time()
    bands = (torch.rand(1, 3, ROWS, side) for _ in range(side // ROWS))
    if how == "whole":
        logits = network(torch.cat(list(bands), 2))
    else:
        stream = RowStream(record_rows(network, 3, (side, side)), torch.device("cpu"))
        play_bands(stream, bands)
        assert stream.logits is not None
        logits = stream.logits
    print(f"{how} {side}²: {peak() - before:.0f} MB, {time.process_time() - start:.1f} CPU s, logit {logits[0, 0]:.6f}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
