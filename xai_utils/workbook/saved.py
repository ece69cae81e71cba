"""What JupyterLab writes into a notebook that was only opened is left out when it saves: the file stays as it is.

The name of the kernel as this machine calls it, and the version of its Python, are no part of a stored notebook.
"""

from __future__ import annotations

from typing import Any


def as_stored(model: dict[str, Any], **_: Any) -> None:
    """Take both out of what is about to be saved; for Jupyter's ``ContentsManager.pre_save_hook``.

    Args:
        model: of Jupyter's contents; what is no notebook is left alone.
    """
    if model.get("type") != "notebook" or not model.get("content"):
        return
    metadata = model["content"].get("metadata", {})
    metadata.get("language_info", {}).pop("version", None)
    if metadata.get("kernelspec", {}).get("name") == "python3":
        metadata["kernelspec"]["display_name"] = "Python 3"
