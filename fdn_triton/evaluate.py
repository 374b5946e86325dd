"""Command line: measure the tracker on a benchmark, ``python -m fdn_triton.evaluate otb|vot|ablation ...``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, Union

import tyro

from .command_line import parse_flags, preset_config, run_command
from .evaluation.ablation_command import AblationOptions, evaluate_ablation
from .evaluation.otb_command import OtbOptions, evaluate_otb
from .evaluation.vot_command import VotOptions, evaluate_vot

Options = Union[OtbOptions, VotOptions, AblationOptions]  # noqa: UP007  read at run time


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0; 2 after input that leaves nothing to do (one line on standard error says why); 3 where something failed and
        the report is of the rest (a line each on standard error); 130 after Ctrl-C. What was finished before is on
        disk in all cases.
    """
    return run_command(lambda flags: _evaluate(_parse(flags)), argv)


def _parse(argv: Sequence[str]) -> Options:
    config, required = preset_config(argv), tyro.MISSING
    otb = tyro.conf.subcommand("otb", default=OtbOptions(root=required, out=required, config=config))
    vot = tyro.conf.subcommand("vot", default=VotOptions(root=required, out=required, config=config))
    options = AblationOptions(root=required, out=required, config=config)
    ablation = tyro.conf.subcommand("ablation", default=options)
    form = Union[  # noqa: UP007  the parts are values
        Annotated[OtbOptions, otb], Annotated[VotOptions, vot], Annotated[AblationOptions, ablation]
    ]
    return parse_flags(argv, form, "python -m fdn_triton.evaluate", description="Measure the tracker on a benchmark.")


def _evaluate(options: Options) -> int:
    if isinstance(options, VotOptions):
        return evaluate_vot(options)
    return evaluate_ablation(options) if isinstance(options, AblationOptions) else evaluate_otb(options)


if __name__ == "__main__":
    sys.exit(main())
