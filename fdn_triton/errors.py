"""The one exception for input that the user can mend."""

from __future__ import annotations


class InputError(ValueError):
    """What was given cannot be used.

    The message is one line that says what is wrong and what to do; the command lines print it on standard
    error and exit with code 2.
    """
