"""``python -m service``: serve until told to stop. Settings come from the environment (docs/service.md)."""

import os
import sys

# Products on several cores would take them from the engine: 932 requests a second instead of 1,088 (docs/service.md).
# Read when numpy is loaded.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from service.errors import BadSettings
from service.json_logs import start_logging
from service.settings import read_settings


def main() -> int:
    """Exit status: 0 after a signal, 2 for bad settings, 3 when the version or the port cannot be had."""
    try:
        settings = read_settings()
    except BadSettings as wrong:
        print(f"bad settings: {wrong}", file=sys.stderr)
        return 2
    start_logging(settings.log_level)
    # Imported here, so that bad settings are told at once.
    from service.workers import run

    return run(settings)


if __name__ == "__main__":
    sys.exit(main())
