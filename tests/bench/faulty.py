"""An origin that fails on command: ADDRESS PORT NAME. It answers each request with its name. SIGUSR1: it takes two seconds for each
response. SIGUSR2: every other response is 503. SIGINT: it closes its listener and each connection after its response. SIGHUP: all
is well again."""

import asyncio
import signal
import socket
import sys

ADDRESS, PORT, NAME = sys.argv[1], int(sys.argv[2]), sys.argv[3]
OK = f"HTTP/1.1 200 OK\r\nContent-Length: {len(NAME)}\r\n\r\n{NAME}".encode()
LAST = OK.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
FAILED = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"


class Origin:
    mode = "well"
    turn = 0
    server = None
    idle = set()


class Connection(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.rest = transport, b""
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        Origin.idle.add(self)

    def connection_lost(self, _):
        Origin.idle.discard(self)

    def data_received(self, data):
        self.rest += data
        while b"\r\n\r\n" in self.rest:
            _, self.rest = self.rest.split(b"\r\n\r\n", 1)
            if Origin.mode == "slow":
                Origin.idle.discard(self)
                asyncio.get_running_loop().call_later(2, self.answer, OK)
            elif Origin.mode == "erroring":
                Origin.turn += 1
                self.answer(FAILED if Origin.turn % 2 else OK)
            elif Origin.mode == "refusing":
                self.answer(LAST)
                self.transport.close()
            else:
                self.answer(OK)

    def answer(self, response):
        if not self.transport.is_closing():
            Origin.idle.add(self)
            self.transport.write(response)


async def listen():
    if Origin.server is None:
        Origin.server = await asyncio.get_running_loop().create_server(Connection, ADDRESS, PORT, backlog=1024, reuse_address=True)


async def refuse():
    Origin.mode = "refusing"
    if Origin.server is not None:
        Origin.server.close()
        Origin.server = None
    for connection in list(Origin.idle):
        connection.transport.close()


async def well():
    Origin.mode = "well"
    await listen()


async def main():
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, lambda: setattr(Origin, "mode", "slow"))
    loop.add_signal_handler(signal.SIGUSR2, lambda: setattr(Origin, "mode", "erroring"))
    loop.add_signal_handler(signal.SIGINT, lambda: loop.create_task(refuse()))
    loop.add_signal_handler(signal.SIGHUP, lambda: loop.create_task(well()))
    await listen()
    await asyncio.Event().wait()


asyncio.run(main())
