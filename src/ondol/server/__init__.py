"""service: the HTTP API, the live status page, and the process that serves them.

``ondol.server.app.create_app`` makes the application, ``ondol.server.run.serve`` runs it.
"""

from __future__ import annotations

__all__: list[str] = []
