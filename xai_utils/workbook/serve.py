"""Serve the explorer alone as an app, to the user of this machine only.

Voilà answers any host name and asks for no token. Here only the names of the loopback are answered, so that no page of
another site can reach the app under a name of its own (DNS rebinding), and a page is given only to who has the token in
the printed address, as in JupyterLab.

Models, methods and widgets are for the kernel: this process imports none of them, so that the kernel starts at once.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from voila.app import Voila

PAGE = Path(__file__).parents[1] / "widgets" / "explorer" / "voila"
NOTEBOOK = PAGE / "explorer.ipynb"
REFILLED = 5  # seconds until the next kernel is made ready, which would slow the first picture of this one


class App(Voila):
    """Voilà with a token, for the loopback's names only."""

    def init_settings(self) -> dict[str, Any]:
        """Refuse foreign host names (HTTP 403), where Voilà would answer all."""
        return {**super().init_settings(), "allow_remote_access": False, "local_hostnames": ["localhost"]}

    @property
    def connection_url(self) -> str:
        """Return the address that the browser opens, with the token."""
        return f"{super().connection_url}?token={self.identity_provider.token}"


def serve(port: int, browser: bool = True, notebook: Path = NOTEBOOK) -> None:
    """Serve until Ctrl-C; only ``exported_views`` is written.

    A kernel with the first view waits before a browser asks for it; every browser gets a kernel of its own.

    Args:
        port: on 127.0.0.1; another one is taken if it is busy.
        browser: open it there.
        notebook: whose widgets are shown.
    """
    os.environ["JUPYTER_PATH"] = os.pathsep.join([str(PAGE), os.environ.get("JUPYTER_PATH", "")])
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"
    options = [str(notebook), "--token", "--Voila.ip=127.0.0.1", f"--port={port}", "--template=local"]
    fit = ["--VoilaConfiguration.extension_denylist=nbdime-jupyterlab"]  # which needs JupyterLab's editor
    ready = ["--preheat_kernel=True", "--pool_size=1", f"--VoilaKernelManager.fill_delay={REFILLED}"]
    App.launch_instance([*options, *fit, *ready, *([] if browser else ["--no-browser"])])
