"""`ImageDescription`: what an image file holds, as text and as JSON."""

from dataclasses import dataclass
from typing import Any

from gapstone.console.formatting import count_noun, display
from gapstone.storage.paths import format_bytes


@dataclass(frozen=True)
class ImageDescription:
    """What `gapstone inspect` says of an image file."""

    path: str
    kind: str
    height: int
    width: int
    channels: int
    dtype: str
    compression: str | None
    micrometres: float | None
    file_bytes: int | None
    whole_bytes: int
    levels: tuple[tuple[int, int, float, tuple[int, int]], ...]  # height, width, downsample, (height, width) of a tile
    notes: tuple[str, ...]

    def __str__(self) -> str:
        megapixels = self.height * self.width / 1e6
        size = f"{self.height}×{self.width} px ({megapixels:,.{0 if megapixels >= 10 else 2}f} megapixels)"
        rows = [
            (display(self.path), ""),
            ("  format", f"{self.kind}{f', packed by {self.compression}' if self.compression else ''}"),
            ("  height×width", f"{size}, {count_noun(self.channels, 'channel')} of {self.dtype}"),
            ("  resolution", "not said" if self.micrometres is None else f"{self.micrometres:.4g} µm per px"),
            ("  file", format_bytes(self.file_bytes) if self.file_bytes is not None else "a folder"),
            ("  read whole", f"{format_bytes(self.whole_bytes)} of memory"),
        ]
        for number, (height, width, downsample, tile) in enumerate(self.levels):
            finer = f", {self.micrometres * downsample:.4g} µm per px" if self.micrometres is not None else ""
            rows.append(
                (f"  level {number}", f"{height}×{width}, 1/{downsample:.4g}, tiles of {tile[0]}×{tile[1]}{finer}")
            )
        rows += [("  note", display(note)) for note in self.notes]
        return "\n".join(f"{name:<16}{said}".rstrip() if said else name for name, said in rows)

    def as_json(self) -> dict[str, Any]:
        """The same as a document of docs/inspect.schema.json."""
        return {
            "schema": 1,
            "image": display(self.path),
            "format": self.kind,
            "size": [self.height, self.width],
            "channels": self.channels,
            "dtype": self.dtype,
            "compression": self.compression,
            "megapixels": self.height * self.width / 1e6,
            "micrometres": self.micrometres,
            "file_bytes": self.file_bytes,
            "whole_bytes": self.whole_bytes,
            "levels": [
                {
                    "size": [height, width],
                    "downsample": downsample,
                    "tile": list(tile),
                    "micrometres": None if self.micrometres is None else self.micrometres * downsample,
                }
                for height, width, downsample, tile in self.levels
            ],
            "notes": list(self.notes),
        }
