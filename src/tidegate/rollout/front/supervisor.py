"""The supervisor of a front: keeps HAProxy and the servers of each arm running as ``fleet.json`` says.

* A server that dies is taken out at once and started again, later each time that it dies young.
* HAProxy that dies is started again with the last committed weights, or stable only.
* HAProxy and the servers have sessions of their own: they outlive a supervisor that is killed, and the next one, which
  finds them in ``running.json``, goes on with them. There is one supervisor a front (a lock).
* A full disk ends nothing: what cannot be started or written is tried again.
* A log of any process of the front grows to 64 MiB, then it is put aside, and one such is kept.
* Told to end, it lets HAProxy finish what it has begun, then ends the servers.
"""

from __future__ import annotations

import fcntl
import http.client
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from tidegate.errors import Damaged, ServerError
from tidegate.rollout.front.configuration import Settings
from tidegate.rollout.front.fleet import Fleet, Running, Server, Wanted, read_fleet, read_running, write_running
from tidegate.rollout.front.kinds import HAPROXY, KINDS, ProxyRouter
from tidegate.rollout.front.orders import orders
from tidegate.rollout.front.process import Process, identify, is_alive, last_error, put_aside, reap, start, tell
from tidegate.rollout.router import ARMS

LOOK_SECONDS = 0.1
FIRST_WAIT, LONGEST_WAIT = 0.25, 10.0  # seconds before what died young is started again: doubled each time
YOUNG = 10.0
DRAIN_SECONDS = 10.0  # for requests under way, before a server is told to end
END_SECONDS = 15.0  # for a server that was told to end, before it is killed
HUNG_SECONDS = 15.0  # without an answer, before a server that was ready is killed

Command = Callable[[Wanted, int, int], Sequence[str]]


@contextmanager
def one_supervisor(folder: Path) -> Iterator[None]:
    """Be the only supervisor of a front.

    Raises:
        ServerError: there is one (code ``front-running``).
    """
    with (folder / "supervisor.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            raise ServerError(
                f"the front {folder.name} has a supervisor",
                allowed="One a front.",
                hint=f"tidegate front status {folder.name}",
                code="front-running",
            ) from e
        yield


@dataclass
class Supervisor:
    """One front's supervisor.

    Args:
        settings: the proxy's; port 0 picks one.
        command: how a server is started: the version, its port, its admin port.
        say: told what happens, a line each.
        clock: seconds that only grow.
        kind: of the proxy, one of ``kinds.KINDS``.
    """

    settings: Settings
    command: Command
    say: Callable[[str], None] = print
    clock: Callable[[], float] = time.monotonic
    kind: str = HAPROXY
    proxy: Process | None = None
    servers: list[Server] = field(default_factory=list)
    leaving: dict[Server, float] = field(default_factory=dict)
    _fleet: Fleet = field(default_factory=Fleet)
    _routes: dict[str, list[int]] = field(default_factory=dict)
    _waits: dict[str, tuple[int, float]] = field(default_factory=dict)  # deaths in a row, and not before
    _born: dict[Process, float] = field(default_factory=dict)
    _answered: dict[Process, float] = field(default_factory=dict)
    _written: Running | None = None
    _has_turned: bool = False
    _noted: set[str] = field(default_factory=set)  # in the turn before
    _notes: set[str] = field(default_factory=set)  # in this one

    @property
    def folder(self) -> Path:
        """Where the front's files are."""
        return self.settings.folder

    @property
    def router(self) -> ProxyRouter:
        """The weights and servers of the proxy."""
        return KINDS[self.kind].router(self.folder)

    @property
    def title(self) -> str:
        """The proxy's name."""
        return KINDS[self.kind].title

    def adopt(self) -> None:
        """Go on with what a supervisor before has left running."""
        try:
            found = read_running(self.folder)
        except Damaged as e:
            self.say(f"note: {e.found}; what it said is started anew")
            return
        if found.proxy and is_alive(found.proxy):
            self.proxy, self.kind = found.proxy, found.kind
            self.settings = replace(self.settings, port=found.port, host=found.host)
            self.say(f"{self.title} (pid {found.proxy.pid}) runs on port {found.port}, with the settings it has")
        self.servers = [s for s in found.servers if is_alive(s.process)]
        self.leaving = {s: self.clock() for s in found.leaving if is_alive(s.process)}
        for server in self.servers:
            self._live(server.process)
            self.say(f"{server.wanted.reference} (pid {server.process.pid}) goes on for {server.arm}")

    def run(self, ended: Callable[[], bool]) -> None:
        """Look after the front until told to end; then end all of it in good order.

        Raises:
            ServerError, OSError: the proxy cannot be started at all.
            ConfigError: the proxy cannot have these settings.
        """
        KINDS[self.kind].check(self.settings)
        self.adopt()
        while not ended():
            self.turn()
            time.sleep(LOOK_SECONDS)
        self.end()

    def turn(self) -> None:
        """Do once what is to be done."""
        reap()
        self._bury()
        self._read_fleet()
        is_up = self._tried(self._keep_proxy, must=not self._has_turned)
        self._start_servers()
        self._ask_all()
        if is_up and self._tried(self._route):
            self._tried(self._restore)
        self._send_away()
        self._tried(self._write)
        self._tried(self._put_logs_aside)
        self._noted, self._notes = self._notes, set()
        self._has_turned = True

    def _tried(self, act: Callable[[], None], *, must: bool = False) -> bool:
        """Do what may fail for a while; raise if it must not: a proxy that cannot be started when nothing else is."""
        try:
            act()
        except (ServerError, OSError) as e:
            if must:
                raise
            self._note(_said(e))
            return False
        return True

    def end(self) -> None:
        """Let the proxy finish what it has begun, then the servers."""
        if self.proxy:
            KINDS[self.kind].drain(self.folder, self.proxy)
            self._wait([self.proxy], DRAIN_SECONDS + 2)
        everyone = [s.process for s in [*self.servers, *self.leaving]]
        for process in everyone:
            tell(process, signal.SIGTERM)
        self._wait(everyone, END_SECONDS)
        for process in [*everyone, *([self.proxy] if self.proxy else [])]:
            tell(process, signal.SIGKILL)
        self.proxy, self.servers, self.leaving = None, [], {}
        self._tried(self._write)

    def _wait(self, processes: Sequence[Process], seconds: float) -> None:
        end = self.clock() + seconds
        while any(is_alive(p) for p in processes) and self.clock() < end:
            time.sleep(0.02)
            reap()

    def _bury(self) -> None:
        """Take out who died. What died young is started again later."""
        for server in [s for s in self.servers if not is_alive(s.process)]:
            self.servers.remove(server)
            self._died(server.arm, server.process)
            log = self.folder / f"{server.arm}.log"
            why = f": {error}" if (error := last_error(log)) else ""
            self.say(f"{server.wanted.reference} (pid {server.process.pid}) of {server.arm} died{why}; see {log}")
        for server in [s for s in self.leaving if not is_alive(s.process)]:
            del self.leaving[server]
        if self.proxy and not is_alive(self.proxy):
            self.say(f"{self.title} (pid {self.proxy.pid}) died")
            self.proxy = None

    def _died(self, arm: str, process: Process) -> None:
        now = self.clock()
        young = now - self._born.pop(process, now) < YOUNG
        self._answered.pop(process, None)
        deaths = self._waits.get(arm, (0, 0.0))[0] + 1 if young else 1
        self._waits[arm] = deaths, now + min(FIRST_WAIT * 2 ** (deaths - 1), LONGEST_WAIT)

    def _live(self, process: Process) -> None:
        self._born[process] = self._answered[process] = self.clock()

    def _read_fleet(self) -> None:
        try:
            self._fleet = read_fleet(self.folder)
        except (Damaged, OSError) as e:
            self._note(f"{e}; the fleet stays as it was")

    def _start_servers(self) -> None:
        for arm, wanted in orders(self._fleet, self.servers).start:
            if self.clock() < self._waits.get(arm, (0, 0.0))[1]:
                continue
            try:
                port, admin_port = free_ports(2)
                process = start(self.command(wanted, port, admin_port), self.folder / f"{arm}.log")
            except (ServerError, OSError) as e:
                self._died(arm, Process(0, 0))
                self._note(_said(e))
                continue
            self._live(process)
            self.servers.append(Server(arm, replace(wanted, workers=1), process, port, admin_port))
            self._tried(self._write)
            self.say(f"{wanted.reference} starts for {arm} (pid {process.pid})")

    def _ask_all(self) -> None:
        """Ask who is ready, now and then also those that were: one that hangs for long is killed."""
        now = self.clock()
        for number, server in enumerate(self.servers):
            if server.ready and now - self._answered[server.process] < HUNG_SECONDS / 5:
                continue
            if is_ready(server.port, self.settings.ready):
                self._answered[server.process] = now
                if not server.ready:
                    self.servers[number] = replace(server, ready=True)
                    self.say(f"{server.wanted.reference} is ready for {server.arm}")
            elif server.ready and now - self._answered[server.process] > HUNG_SECONDS:
                self.say(f"{server.wanted.reference} (pid {server.process.pid}) of {server.arm} hangs")
                tell(server.process, signal.SIGKILL)

    def _keep_proxy(self) -> None:
        if self.proxy:
            return
        if not self.settings.port:
            self.settings = replace(self.settings, port=free_ports(1)[0])
        self._routes = {}
        ready = [s.arm for s in self.servers if s.ready]
        self.proxy = KINDS[self.kind].start(self.settings, ready, began=self._began)
        self.say(f"{self.title} (pid {self.proxy.pid}) answers at {self.settings.host}:{self.settings.port}")

    def _began(self, process: Process) -> None:
        self.proxy = process
        self._tried(self._write)

    def _route(self) -> None:
        for arm, servers in orders(self._fleet, self.servers).routes.items():
            ports = [s.port for s in servers]
            if self._routes.get(arm) != ports:
                self.router.serve(arm, ports)
                self._routes[arm] = ports

    def _restore(self) -> None:
        """Give arms the share that is theirs, once they have servers again after a start of the proxy."""
        self.router.restore([arm for arm in ARMS if self._routes.get(arm)])

    def _send_away(self) -> None:
        now = self.clock()
        routed = {port for ports in self._routes.values() for port in ports}
        for server in orders(self._fleet, self.servers).leave:
            if server.port not in routed:
                self.servers.remove(server)
                self.leaving[server] = now
                self.say(f"{server.wanted.reference} (pid {server.process.pid}) leaves {server.arm}")
        for server, since in self.leaving.items():
            if now - since > DRAIN_SECONDS + END_SECONDS:
                tell(server.process, signal.SIGKILL)
            elif now - since > DRAIN_SECONDS or not self._is_busy(server):
                tell(server.process, signal.SIGTERM)

    def _is_busy(self, server: Server) -> bool:
        with suppress(ServerError):
            return self.router.busy(server.arm).get(server.port, 0) > 0
        return False

    def _write(self) -> None:
        routed = {port for ports in self._routes.values() for port in ports}
        servers = tuple(replace(s, ready=s.ready and s.port in routed) for s in self.servers)
        me = identify(os.getpid()) if self.proxy else None
        now = Running(self.settings.port, self.settings.host, self.proxy, me, servers, tuple(self.leaving), self.kind)
        if now != self._written:
            write_running(self.folder, now)
            self._written = now

    def _put_logs_aside(self) -> None:
        for log in self.folder.glob("*.log"):
            put_aside(log)

    def _note(self, text: str) -> None:
        """Say what goes wrong, once while it goes on."""
        if text not in self._noted | self._notes:
            self.say(f"note: {text}")
        self._notes.add(text)


def free_ports(count: int) -> list[int]:
    """Return ports of this machine that nothing listens on now, each another one."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [int(sock.getsockname()[1]) for sock in sockets]


def _said(error: ServerError | OSError) -> str:
    return error.found if isinstance(error, ServerError) else str(error)


def is_ready(port: int, path: str, seconds: float = 1.0) -> bool:
    """Whether a server of this machine says that it is ready."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
