"""What must hold before the service's libraries are loaded."""

import os
import subprocess
import sys

SHOWN = (
    "import service.__main__, service.app, threadpoolctl;"
    "print([one['num_threads'] for one in threadpoolctl.threadpool_info() if one['user_api'] == 'blas'])"
)


def test_products_outside_the_engine_take_one_core() -> None:
    """Whatever the machine has; on one of a single core this cannot fail."""
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    shown = subprocess.run([sys.executable, "-c", SHOWN], env=environment, capture_output=True, text=True, check=True)
    assert set(shown.stdout.strip(" []\n").split(", ")) == {"1"}
