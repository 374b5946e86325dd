"""What the command lines share: flags over a preset, errors as one line on standard error, exit codes."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from typing import Any

import tyro

from .config import PRESETS, TrackerConfig
from .errors import InputError

EXIT_OK, EXIT_BAD_INPUT, EXIT_SOME_FAILED, EXIT_INTERRUPTED = 0, 2, 3, 130


def run_command(command: Callable[[Sequence[str]], int], argv: Sequence[str] | None) -> int:
    """Run a command line.

    Args:
        command: from the flags to the exit code.
        argv: the flags; None for those of the process.

    Returns:
        The command's code; 2 after input that cannot be used (one line on standard error says why); 130 after Ctrl-C.
    """
    try:
        return command(sys.argv[1:] if argv is None else argv)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of standard output is gone (| head)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BAD_INPUT
    except SystemExit:  # tyro's, after --help
        return EXIT_OK


def preset_config(argv: Sequence[str]) -> TrackerConfig:
    """The numbers of ``--preset``, which have to be known before the flags that override them are read."""
    preset = "paper"
    for flag, value in zip(argv, [*argv[1:], ""], strict=False):
        name, equals, attached = flag.partition("=")
        if name == "--preset":
            preset = attached if equals else value
    return PRESETS.get(preset, TrackerConfig())  # tyro refuses the unknown one


def parse_flags(argv: Sequence[str], form: Any, prog: str, **more: Any) -> Any:
    """The flags as ``form``, what ``tyro.cli`` takes.

    Raises:
        InputError: they cannot be read.
        SystemExit: help was asked for, and printed.
    """
    panel = io.StringIO()
    try:
        with redirect_stderr(panel):
            return tyro.cli(form, args=list(argv), prog=prog, **more)
    except SystemExit as stop:
        if stop.code:
            raise InputError(_one_line(panel.getvalue())) from None
        raise


def _one_line(panel: str) -> str:
    """The message in tyro's panel, which has a title above it and hints under a rule below it."""
    message: list[str] = []
    for line in panel.splitlines()[1:]:
        text = line.strip(" │|")
        if re.search(r"\w", text):
            message.append(text)
        elif message:
            break
    return " ".join(message).removeprefix("Error parsing config: ") or "the flags cannot be read: see --help"
