"""Directories outside the workspace, by each system's custom, for configs that keep big things in one place.

source = paths.data() / "hp_lovecraft"
"""

from pathlib import Path

import platformdirs

NAME = "lovecraft"


def data() -> Path:
    """Return the user's directory for data that many workspaces share: `~/.local/share/lovecraft` on Linux."""
    return platformdirs.user_data_path(NAME)


def cache() -> Path:
    """Return the user's directory for what can be made again: `~/.cache/lovecraft` on Linux."""
    return platformdirs.user_cache_path(NAME)
