"""The command `patchead` as ``python -m patchead``: for a cluster that gets the code with the job."""

from __future__ import annotations

import sys

from patchead.cli import main

if __name__ == "__main__":
    sys.argv[0] = "patchead"
    main()
