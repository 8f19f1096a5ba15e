"""Maps between pages that may not be touched: one number read or written too far ends the process."""

import ctypes
import mmap

import torch

PAGE = mmap.PAGESIZE
LIBC = ctypes.CDLL(None, use_errno=True)


def guarded(x: torch.Tensor, at_end: bool) -> tuple[torch.Tensor, mmap.mmap]:
    """The same map, memory and strides, right before (or behind) a page that may not be touched."""
    size = x.untyped_storage().nbytes()
    pages = -(-size // PAGE) + 2
    area = mmap.mmap(-1, pages * PAGE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(area))
    for guard in (start, start + (pages - 1) * PAGE):
        assert LIBC.mprotect(ctypes.c_void_p(guard), PAGE, 0) == 0
    offset = (pages - 1) * PAGE - size if at_end else PAGE
    offset -= (offset if at_end else 0) % x.element_size()
    inside = torch.frombuffer(area, dtype=torch.uint8, count=size, offset=offset).view(x.dtype)
    inside = inside.as_strided(x.shape, x.stride())
    inside.copy_(x)
    return inside, area
