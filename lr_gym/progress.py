"""A progress bar that does not depend on the system's clock."""

from __future__ import annotations

import time
from typing import Any

from tqdm import tqdm


class ProgressBar(tqdm):  # type: ignore[type-arg] # not generic when it runs
    """tqdm's bar, with elapsed and remaining time by the monotonic clock.

    tqdm takes `time.time`. When someone sets the clock back, its times are negative
    and the bar stands still until the clock has caught up.
    """

    def __init__(self, **settings: Any) -> None:
        """Show the bar; `settings` are keywords of `tqdm`."""
        super().__init__(**settings)
        self._latest = time.monotonic()
        self._time = self._monotonic
        self.start_t = self.last_print_t = self._latest

    def _monotonic(self) -> float:
        """Return seconds that never decrease, whatever the clocks do."""
        self._latest = max(self._latest, time.monotonic())
        return self._latest
