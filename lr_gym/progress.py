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
        self._time = time.monotonic
        self.start_t = self.last_print_t = self._time()

    @property
    def format_dict(self) -> dict[str, Any]:
        """The values that the bar shows."""
        values = dict(super().format_dict)
        values["elapsed"] = max(0.0, values["elapsed"])
        return values
