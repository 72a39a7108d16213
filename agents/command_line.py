"""Read the command lines of the scripts of `agents/` and `benchmarks/`."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from agents.console import replace_unprintable
from lr_gym.files import user_path
from lr_gym.validation import check_integer

ArgsType = TypeVar("ArgsType")
MAX_SEED = 2**32 - 1


def parse_command_line(
    args_class: type[ArgsType],
    description: str | None,
    **settings: Any,
) -> ArgsType:
    """Return the command line as an `args_class`; exit with status 2 if it is wrong.

    It is also wrong if ``--seed`` is no seed of NumPy, torch and stable-baselines3.
    From here on the script prints ``?`` for a character that the console lacks.

    Args:
        args_class: The dataclass of the script's options.
        description: The text of ``--help``.
        settings: Keywords of `tyro.cli`.
    """
    import tyro

    replace_unprintable()
    arguments = expand_tildes(sys.argv[1:])
    args: ArgsType
    args = tyro.cli(args_class, description=description, args=arguments, **settings)
    with one_line_errors():
        check_integer("--seed", getattr(args, "seed", 0), 0, MAX_SEED)
    return args


@contextmanager
def one_line_errors() -> Iterator[None]:
    """End the script in one line for an error that its user can correct."""
    try:
        yield
    except (ValueError, TypeError, OSError, ImportError) as error:
        raise SystemExit(f"error: {error}") from error


def expand_tildes(arguments: Sequence[str]) -> list[str]:
    """Replace ``~/`` in arguments and in ``--name=~/...``, which shells leave as it is.

    Raises:
        SystemExit: The home folder is unknown.
    """
    return [_expand_tilde(argument) for argument in arguments]


def _expand_tilde(argument: str) -> str:
    parts = re.fullmatch(r"(--[\w-]+=)?(~(?:/.*)?)", argument, re.DOTALL)
    if parts is None:
        return argument
    try:
        return (parts[1] or "") + str(user_path(parts[2]))
    except ValueError as error:
        raise SystemExit(f"error: {error}") from error
