"""Read the command lines of the scripts of `agents/` and `benchmarks/`."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import Any, TypeVar

from agents.console import replace_unprintable
from lr_gym.files import user_path

ArgsType = TypeVar("ArgsType")


def parse_command_line(
    args_class: type[ArgsType],
    description: str | None,
    **settings: Any,
) -> ArgsType:
    """Return the command line as an `args_class`; exit with status 2 if it is wrong.

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
    return args


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
