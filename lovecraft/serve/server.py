"""Running the server: the port, loading behind it, and an orderly end."""

import asyncio
import concurrent.futures
import contextlib
import hashlib
import ipaddress
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence

import uvicorn

from lovecraft.config.schema import ServeConfig
from lovecraft.errors import ServeError
from lovecraft.serve.app import make_app
from lovecraft.serve.asgi import Access
from lovecraft.serve.keys import read_keys
from lovecraft.serve.service import Served, Service
from lovecraft.serve.wire import LimitedProtocol

log = logging.getLogger(__name__)

GRACE = 5  # seconds that connections get to take the last bytes, after the requests were ended


Load = Callable[[], Mapping[str, Served]]
Ready = Callable[[str, Mapping[str, Served]], None]


def run(config: ServeConfig, names: Sequence[str], load: Load, ready: Ready) -> None:
    """Serve until SIGTERM or SIGINT, then let running requests finish for `config.drain_timeout` seconds.

    The port is taken first; requests get 503 until `load` is done, whose models have the `names`. Then `ready` is
    called with the URL. Raises ServeError when the port cannot be had, or would be open to others without a key, and
    what `load` raises.
    """
    service = Service(names, config.context)
    access = make_access(config)
    with bind(config.host, config.port) as listener:
        asyncio.run(_serve(Server(service, access, config.drain_timeout), listener, load, ready))


def make_access(config: ServeConfig) -> Access:
    """Return who may come in. Raises ServeError for a host open to others without keys, and for a bad key file."""
    given = () if config.api_key_file is None else read_keys(config.api_key_file)
    keys = tuple(hashlib.sha256(key.encode()).digest() for key in given)
    if not keys and not is_loopback(config.host):
        raise ServeError(
            f"host {config.host} is open to other machines, and there is no API key",
            hint="give --api-key-file FILE, or keep --host 127.0.0.1",
        )
    # With keys a foreign page gets nowhere, and a proxy may use any name.
    hosts = None if keys else frozenset({"localhost", "127.0.0.1", "[::1]", config.host.lower()})
    return Access(keys, hosts)


def is_loopback(host: str) -> bool:
    """Return whether an address is reached from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that listens on the address. Raises ServeError when it cannot be had."""
    # Only where the protocol is named does asyncio send small pieces at once, instead of 40 ms later (Nagle).
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen()
    except OSError as error:
        listener.close()
        hint = "stop what listens there, or give another --port (0 takes a free one)"
        raise ServeError(f"cannot listen on {host}:{port}: {error.strerror}", hint=hint) from None
    return listener


class Server(uvicorn.Server):
    """uvicorn, but a signal drains the requests, ends them at a deadline with an error, and the exit code is 0."""

    def __init__(self, service: Service, access: Access, drain_timeout: float) -> None:
        super().__init__(
            uvicorn.Config(
                make_app(service, access),
                http=LimitedProtocol,
                lifespan="off",
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=int(drain_timeout) + GRACE,
            )
        )
        self.service = service
        self.drain_timeout = drain_timeout

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Drain on a signal; uvicorn would raise it again at the end."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.stop)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

    def stop(self) -> None:
        """Take no more requests and end when those that run have finished; at once when called again."""
        if self.should_exit:
            self.force_exit = True
            self._abort()
            return
        self.should_exit = self.service.draining = True
        if any(one.engine.jobs for one in self.service.served.values()):
            log.warning("finishing running requests for up to %g s; again to stop at once", self.drain_timeout)
        asyncio.get_running_loop().call_later(self.drain_timeout, self._abort)

    def _abort(self) -> None:
        for one in self.service.served.values():
            one.engine.abort()


async def _serve(server: Server, listener: socket.socket, load: Load, ready: Ready) -> None:
    serving = asyncio.create_task(server.serve([listener]))
    await asyncio.sleep(0)  # signals are caught from here on
    loading = asyncio.wrap_future(_in_thread(load))
    await asyncio.wait({serving, loading}, return_when=asyncio.FIRST_COMPLETED)
    if loading.done() and not loading.exception():
        server.service.served = loading.result()
        ready(_url(listener), loading.result())
    server.should_exit |= loading.done() and loading.exception() is not None
    await serving
    if loading.done():
        for one in loading.result().values():
            one.engine.abort()
            one.engine.join(GRACE)


def _in_thread(load: Load) -> concurrent.futures.Future[Mapping[str, Served]]:
    """Run `load` on a thread that does not keep the process alive: a signal must not wait for it."""
    future: concurrent.futures.Future[Mapping[str, Served]] = concurrent.futures.Future()

    def work() -> None:
        try:
            future.set_result(load())
        except BaseException as error:  # noqa: BLE001  carried over to whoever waits for the result
            future.set_exception(error)

    threading.Thread(target=work, name="load", daemon=True).start()
    return future


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
