"""The sockets on which a replica's lanes end: a Unix socket in a folder that only this user can enter, and one on TCP."""

import os
import socket
import ssl
import stat
import tempfile
from contextlib import suppress
from pathlib import Path as File

STALE_S = 60.0  # a socket on which nothing listens for that long was left behind by a killed replica


def own_folder() -> File:
    """A folder for sockets, closed to other users; its path is short, as a socket's may have 107 bytes. Raises OSError."""
    folder = File(tempfile.gettempdir()) / f"stepdown-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(f"{folder} is open to other users: mend its owner and mode (700), or remove it")
    return folder


def sweep(folder: File, now_s: float) -> None:
    """Remove sockets on which nothing listens any more."""
    for path in folder.iterdir():
        with suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            if now_s - path.lstat().st_mtime > STALE_S and probe.connect_ex(str(path)):
                path.unlink()


def unix_socket(path: str) -> socket.socket:
    """Bound to the path. Raises OSError."""
    made = socket.socket(socket.AF_UNIX)
    try:
        made.bind(path)
    except OSError:
        made.close()
        raise
    return made


def tcp_socket(host: str) -> socket.socket:
    """Bound to a free port of this address of the machine. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family)
    try:
        made.bind((host, 0))
    except OSError:
        made.close()
        raise
    return made


def serving(certificate: str, key: str) -> ssl.SSLContext:
    """TLS for a replica. certificate, key: PEM files. Raises OSError, of which SSLError is one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(certificate, key)
    return context


def asking(certificate: str) -> ssl.SSLContext:
    """TLS for an ingress, which trusts this certificate or its signer and nothing else. Raises OSError.

    The name in it is not compared: replicas are known by their certificate, and have no names.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.load_verify_locations(certificate)
    return context
