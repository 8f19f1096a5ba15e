"""Inspection: the result of `gs.inspect`, the costs of a network as text, JSON and picture."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path

from gapstone.console.formatting import cell
from gapstone.inspecting.network_costs import NetworkCosts


@dataclass(frozen=True, repr=False)
class Inspection(NetworkCosts):
    """The costs of a network; counts are for one image of `size`.

    Examples:
        >>> inspection = gs.inspect(torchvision.models.vgg16())
        >>> inspection.parameters, inspection.head_parameters, inspection.macs
        (138357544, 123642856, 15470264320)
        >>> print(inspection)  # what `gapstone inspect` prints
        >>> inspection.save("vgg16.png")
        PosixPath('vgg16.png')
    """

    def save(self, path: str | Path) -> Path:
        """Draw the parameters, multiply-adds and memory of each part.

        Args:
            path: Where to write the picture; its ending selects PNG or SVG.

        Returns:
            The path.
        """
        from gapstone.inspecting.cost_picture import save

        return save(self, Path(path))

    def _repr_html_(self) -> str:
        """Return the tables and the picture for a notebook."""
        from gapstone.inspecting.cost_picture import png

        uri = base64.b64encode(png(self)).decode("ascii")
        picture = f'<img style="max-width:100%" src="data:image/png;base64,{uri}" alt="where the costs are">'
        return cell(str(self)) + picture

    def __str__(self) -> str:
        from gapstone.console.terminal import Terminal
        from gapstone.inspecting.inspection_table import show

        text = io.StringIO()
        show(Terminal(file=text, width=100), self)
        return text.getvalue().rstrip("\n")
