"""A PostgreSQL of our own, on a unix socket in a temporary folder; for the tests and benchmarks of the ledger."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class NotInstalled(Exception):
    """Says what is missing."""


def programs() -> Path:
    """The newest Debian has, else the one on the path."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    on_path = shutil.which("initdb")
    if not found and not on_path:
        raise NotInstalled("PostgreSQL is not installed; apt install postgresql")
    return (found[-1] if found else Path(str(on_path))).parent


def as_postgres() -> list[str]:
    """It refuses to run as root."""
    if os.geteuid() != 0:
        return []
    if not shutil.which("runuser") or "postgres" not in {user.pw_name for user in pwd.getpwall()}:
        raise NotInstalled("PostgreSQL does not run as root, and there is no user postgres here")
    return ["runuser", "-u", "postgres", "--"]


class Postgres:
    """Made by `postgres()`; may be stopped and started again."""

    def __init__(self, folder: Path, fsync: bool) -> None:
        self.folder, self.prefix, self.programs = folder, as_postgres(), programs()
        self.options = f"-c listen_addresses='' -k {folder} -c fsync={'on' if fsync else 'off'} -c max_connections=60"
        if self.prefix:
            shutil.chown(folder, "postgres", "postgres")
        self.run("initdb", "-D", str(folder / "data"), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        self.number = 0

    def run(self, program: str, *arguments: str) -> None:
        command = [*self.prefix, str(self.programs / program), *arguments]
        with open(self.folder / "out.txt", "a+") as out:  # a file: the server would keep a pipe open
            done = subprocess.run(command, stdout=out, stderr=out, cwd="/", timeout=60)
            if done.returncode:
                out.seek(0)
                raise RuntimeError(f"{program} failed: {out.read()[-2000:]}")

    def start(self) -> None:
        self.run("pg_ctl", "-D", str(self.folder / "data"), "-w", "-o", self.options, "-l", str(self.folder / "log.txt"), "start")

    def stop(self, how: str = "immediate") -> None:
        self.run("pg_ctl", "-D", str(self.folder / "data"), "-w", "-m", how, "stop")

    def database(self) -> str:
        """The URL of a new, empty database."""
        import psycopg

        self.number += 1
        with psycopg.connect(f"host={self.folder} user=postgres dbname=postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE ledger{self.number}")
        return f"postgresql+psycopg://postgres@/ledger{self.number}?host={self.folder}"


@contextmanager
def postgres(fsync: bool = False) -> Iterator[Postgres]:
    """Raises NotInstalled."""
    programs()
    folder = Path(tempfile.mkdtemp(prefix="stepdown-pg-"))
    try:
        server = Postgres(folder, fsync)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
