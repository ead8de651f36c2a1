"""``python -m hicmae`` is the ``hicmae`` command."""

import sys

from hicmae.cli import main

sys.exit(main())
