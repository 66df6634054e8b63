"""Who says so: the account that runs a command."""

from __future__ import annotations

import getpass
import os


def account() -> str:
    """Name the account that runs this; by its number where it has no name, as in a container under any user id."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # neither LOGNAME nor USER is set, and the number is in no list of accounts
        return f"uid {os.getuid()}"
