"""The name that some tests have for ``tests.native_trees`` until they import that."""

from tests.native_trees import *  # noqa: F403
from tests.native_trees import WILD as BUILDERS  # noqa: F401
