"""What a metric is counted in: its range, which end is better, how its differences are told, which do not matter."""

from dataclasses import dataclass, replace

from gapstone.console.formatting import signed

AIMS = (10, 4, 2, 1)
"""Plans are made for true differences of so many times the margin."""


@dataclass(frozen=True)
class Unit:
    """The unit of a metric and of its differences."""

    name: str = "percentage points"
    """Of differences; "" for a number without a unit."""
    factor: float = 100.0
    """A difference is shown as so many times its number."""
    digits: int = 1
    margin: float | None = 0.005
    """Differences up to it do not matter; None: nobody knows, so that nothing is called equivalent."""
    low: float = 0.0
    """The least value that the metric can have."""
    high: float = 1.0
    lower_is_better: bool = False
    aims: tuple[float, ...] = (0.05, 0.02, 0.01, 0.005)
    """True differences that plans are made for."""

    @property
    def reach(self) -> float:
        """The largest difference that two values can have."""
        return self.high - self.low

    @property
    def is_share(self) -> bool:
        """Whether it is a number between 0 and 1 that is shown in per cent."""
        return (self.low, self.high, self.factor) == (0.0, 1.0, 100.0)

    def with_margin(self, margin: float) -> "Unit":
        """The same with another margin, and plans for differences from ten times the margin down to it.

        >>> Unit().with_margin(0.01).aims, Unit().with_margin(0.005) == Unit()
        ((0.1, 0.04, 0.02, 0.01), True)
        """
        largest = self.high - self.low
        return replace(self, margin=margin, aims=tuple(times * margin for times in AIMS if times * margin < largest))

    def gain(self, difference: float) -> float:
        """The difference, positive where it is one for the better."""
        return -difference if self.lower_is_better else difference

    def amount(self, value: float) -> str:
        """A size in words.

        >>> Unit().amount(0.01), Unit().amount(0.005), Unit("nats", 1).amount(0.02)
        ('1 percentage point', '0.5 percentage points', '0.02 nats')
        """
        number = f"{self.factor * value:g}"
        return f"{number} {self.name.removesuffix('s') if number == '1' else self.name}".strip()

    def change(self, difference: float) -> str:
        """A difference in words.

        >>> Unit().change(-0.0123), Unit("nats", 1, 3).change(0.04)
        ('−1.2 percentage points', '+0.040 nats')
        """
        return f"{signed(self.factor * difference, self.digits)} {self.name}".strip()

    def value(self, number: float) -> str:
        """The metric itself in words.

        >>> Unit().value(0.9312), Unit("nats", 1, 3).value(0.2)
        ('93.1 %', '0.200 nats')
        """
        if self.is_share:
            return f"{100 * number:.{self.digits}f} %"
        return f"{self.factor * number:,.{self.digits}f} {self.name}".strip()

    def values(self, low: float, high: float) -> str:
        """The ends of a range.

        >>> Unit().values(0.91, 0.93)
        '91.0 to 93.0 %'
        """
        return f"{self.value(low).removesuffix(' %').removesuffix(f' {self.name}')} to {self.value(high)}"


POINTS = Unit()
NATS = Unit("nats", 1.0, 3, margin=0.01, high=float("inf"), lower_is_better=True, aims=(0.1, 0.05, 0.02, 0.01))
BRIER = Unit("", 1.0, 3, margin=0.005, high=2.0, lower_is_better=True)
BRIER_OF_CLASS = Unit("", 1.0, 3, margin=0.0025, lower_is_better=True)
"""Of one class, a yes or no: half of what two classes that exclude each other have together."""
