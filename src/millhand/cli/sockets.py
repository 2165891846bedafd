"""The socket that the API listens on."""

from __future__ import annotations

import socket

from millhand.core.errors import MillhandError

BACKLOG = 1024


def open_socket(host: str, port: int, *, instead: str) -> socket.socket:
    """Listen on an address; raises MillhandError that names the option (`instead`) by which to choose another port."""
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        reason = error.strerror or str(error)
        raise MillhandError(f"can't listen on {host}:{port}: {reason}; choose another port with {instead}") from None
    return listening
