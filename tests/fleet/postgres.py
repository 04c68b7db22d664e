"""A private PostgreSQL cluster in a temporary folder, on a socket of its own, for tests."""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import sqlalchemy as sa


@dataclass
class Cluster:
    """A cluster that listens on a Unix socket in `folder` and nowhere else."""

    folder: Path
    programs: Path
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @classmethod
    @contextlib.contextmanager
    def start(cls) -> Iterator[Cluster]:
        """A fresh cluster, running; gone afterwards."""
        found = cls(Path(tempfile.mkdtemp(prefix="edgefleet-pg-")), _find_programs())
        user = _user()
        if user is not None:
            shutil.chown(found.folder, user)
        data = str(found.folder / "data")
        try:
            found._run("initdb", "-D", data, "-U", "tests", "-A", "trust", "-N", "-E", "UTF8")
            found._control("start")
            try:
                yield found
            finally:
                found._control("stop", "-m", "immediate")
        finally:
            shutil.rmtree(found.folder, ignore_errors=True)

    def restart(self) -> None:
        """Start it anew after what is to it a crash: what was committed comes from its journal."""
        self._control("restart", "-m", "immediate")

    @contextlib.contextmanager
    def hanging(self) -> Iterator[None]:
        """Stopped (SIGSTOP), as by a disk that is stuck: connections are taken, nothing is said."""
        stopped: list[int] = []
        try:
            while more := sorted(set(self._processes()) - set(stopped)):  # the first forks no more
                for pid in more:
                    os.kill(pid, signal.SIGSTOP)
                stopped += more
            yield
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)

    def _processes(self) -> list[int]:
        first = int((self.folder / "data" / "postmaster.pid").read_text().split()[0])
        listed = f"/proc/{first}/task/{first}/children"
        return [first, *map(int, Path(listed).read_text().split())]

    def _control(self, *words: str) -> None:
        options = f"-k {self.folder} -c listen_addresses= -c fsync=off"
        log, data = str(self.folder / "log"), str(self.folder / "data")
        self._run("pg_ctl", "-D", data, "-w", "-l", log, "-o", options, *words)

    def _run(self, program: str, *arguments: str) -> None:
        user = _user()
        done = subprocess.run(
            [self.programs / program, *arguments],
            user=user,
            group=user,
            extra_groups=[] if user is not None else None,
            cwd=self.folder,
            env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    def new_database(self) -> str:
        """The address of a new, empty data base."""
        name = f"fleet{next(self._numbers)}"
        engine = sa.create_engine(self._url("postgres"), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(sa.text(f"CREATE DATABASE {name}"))
        engine.dispose()
        return self._url(name)

    def _url(self, database: str) -> str:
        return f"postgresql+psycopg://tests@/{database}?host={self.folder}"


def _find_programs() -> Path:
    found = _installed()
    if found is None and os.environ.get("CI") == "true":
        subprocess.run(["apt-get", "update", "-qq"], check=True)
        install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "postgresql"]
        subprocess.run(install, check=True)
        found = _installed()
        assert found is not None, "the package postgresql does not bring initdb"
    if found is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    return found


def _installed() -> Path | None:
    for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
        if (folder / "initdb").exists():
            return folder
    found = shutil.which("initdb")
    return Path(found).parent if found is not None else None


def _user() -> str | None:
    """PostgreSQL refuses to run as root: then as this user."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    pytest.skip("root cannot run PostgreSQL, and there is no other user")
