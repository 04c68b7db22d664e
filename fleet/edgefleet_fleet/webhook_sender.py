"""Sends what webhooks want to hear, and keeps how far each is.

A webhook is leased for a minute before it is asked (its next attempt is moved on), so that of
several processes one sends; what a process that died had sent comes again. No transaction is open
while an address is asked. Redirects are not followed: a redirect is an answer that is not 2xx.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import secrets
from dataclasses import replace
from typing import Final

import requests

from edgefleet_contract.bundle import is_name
from edgefleet_contract.errors import EdgefleetError, OperatorError
from edgefleet_fleet import webhooks as core
from edgefleet_fleet.errors import Conflict, NotFound
from edgefleet_fleet.records import AuditRow
from edgefleet_fleet.webhooks import Webhook
from edgefleet_fleet.work import Actor, Room

log = logging.getLogger("edgefleet.webhooks")

_TIMEOUT_S: Final = (5, 10)
_SWEEP_S: Final = 5.0
_AT_ONCE: Final = 100
_MOST: Final = 50


class Webhooks:
    """The webhooks of one control room."""

    def __init__(self, room: Room) -> None:
        self._room = room

    def add(self, name: str, url: str, events: tuple[str, ...], *, actor: Actor) -> Webhook:
        """A new webhook, told of what happens from now on. Its secret is made here.

        Raises:
            Malformed: the address or the patterns are not what they may be.
            OperatorError: it cannot be called so, or there are too many.
            Conflict: there is one of this name.
        """
        core.check(url, events)
        if not is_name(name) or len(name) > 64:
            raise OperatorError(f"a webhook cannot be called {name[:80]!r}: [a-z0-9][a-z0-9._-]*")
        secret = core.PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()
        with self._room.work(actor) as work:
            if work.tx.webhooks.get(name) is not None:
                raise Conflict(f"there is a webhook {name!r}", hint=f"fleet webhooks remove {name}")
            if len(work.tx.webhooks.list()) >= _MOST:
                raise OperatorError(f"there are {_MOST} webhooks: remove one first")
            work.record("webhook.add", name, url)
            newest = work.tx.ledger.newest()
            found = Webhook(name, url, secret, events, work.now, actor.who, newest)
            work.tx.webhooks.add(found)
        return found

    def remove(self, name: str, *, actor: Actor) -> None:
        """End a webhook.

        Raises:
            NotFound: there is none of this name.
        """
        with self._room.work(actor) as work:
            if not work.tx.webhooks.remove(name):
                raise NotFound(f"there is no webhook {name[:80]!r}")
            work.record("webhook.remove", name)

    def resume(self, name: str, *, actor: Actor) -> Webhook:
        """Let one go on at once, from where it stopped. Raises as `remove`."""
        with self._room.work(actor) as work:
            found = work.tx.webhooks.get(name)
            if found is None:
                raise NotFound(f"there is no webhook {name[:80]!r}")
            again = core.resumed(found)
            work.tx.webhooks.keep(found, again)
            work.record("webhook.resume", name)
        return again

    def list(self) -> tuple[Webhook, ...]:
        """All of them, by name."""
        with self._room.store.begin() as tx:
            return tx.webhooks.list()

    async def run(self) -> None:
        """Send until cancelled: at every change, and a slow sweep for what is tried again."""
        woken = asyncio.Event()

        async def wake() -> None:
            async for change in self._room.changes.watch():
                if change is not None:
                    woken.set()

        waker = asyncio.create_task(wake())
        try:
            while True:
                woken.clear()
                try:
                    while await self._room.threads.run(self.send_due):
                        pass
                except EdgefleetError as error:
                    log.warning("webhooks wait: %s", error)
                try:
                    async with asyncio.timeout(_SWEEP_S):
                        await woken.wait()
                except TimeoutError:
                    continue
        finally:
            waker.cancel()

    def send_due(self) -> int:
        """Send what is due, a row for each webhook; how many rows were taken."""
        now = int(self._room.clock())
        with self._room.store.begin() as tx:
            due = tx.webhooks.due(now)
        return sum(self._send_next(webhook, now) for webhook in due)

    def _send_next(self, webhook: Webhook, now: int) -> bool:
        with self._room.store.begin() as tx:
            rows = tx.ledger.after(webhook.cursor, limit=_AT_ONCE)
            found = next(((n, row) for n, row in rows if webhook.wants(row.what)), None)
            if found is None:
                if rows:  # nothing for it in these
                    tx.webhooks.keep(webhook, replace(webhook, cursor=rows[-1][0]))
                return len(rows) == _AT_ONCE
            leased = replace(webhook, next_at=now + core.LEASE_S)
            if not tx.webhooks.keep(webhook, leased):
                return False  # another process has it
        number, row = found
        why, retry_after_s = self._ask(leased, number, row)
        now = int(self._room.clock())
        if why:
            new = core.failed(leased, why, now=now, retry_after_s=retry_after_s)
            level = logging.ERROR if new.stopped else logging.WARNING
            log.log(level, "webhook %s, row %d: %s", webhook.name, number, why)
        else:
            new = core.taken(leased, number)
        with self._room.store.begin() as tx:
            tx.webhooks.keep(leased, new)
        return not why

    def _ask(self, webhook: Webhook, number: int, row: AuditRow) -> tuple[str, int]:
        """Why it was not taken (empty: it was), and how long the address wants us to wait."""
        body = core.body_of(self._room.fleet, number, row)
        at = int(self._room.clock())
        headers = core.headers_of(webhook, self._room.fleet, number, body, at=at)
        try:
            with requests.post(
                webhook.url,
                data=body,
                headers=headers,
                timeout=_TIMEOUT_S,
                allow_redirects=False,
                stream=True,  # the answer's body is not read
            ) as response:
                if 200 <= response.status_code < 300:
                    return "", 0
                after = response.headers.get("retry-after", "")
                wait = int(after) if after.isdigit() and len(after) < 6 else 0
                return f"answered {response.status_code}", wait
        except requests.RequestException as error:
            return f"not reached: {type(error).__name__}", 0
