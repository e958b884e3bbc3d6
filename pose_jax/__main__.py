"""`python -m pose_jax VERB` is `pose-jax VERB`."""

import sys

from pose_jax.cli import main

if __name__ == "__main__":
    sys.exit(main())
