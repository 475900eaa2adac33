"""An HTTP/3 client on aioquic that opens connections: `quic.py PORT HOST full|resumed|idle COUNT`. Each has one request. It
prints a line for each step, and waits for one on its standard input before it goes on."""

import asyncio
import sys

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration

PORT, HOST, KIND, COUNT = int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
# So many are opened at once.
WIDTH = 8
# Servers close what says nothing for half a minute.
PING = 10


class Client(QuicConnectionProtocol):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.http = H3Connection(self._quic)
        self.answered = asyncio.get_running_loop().create_future()

    def quic_event_received(self, event):
        for event in self.http.handle_event(event):
            if isinstance(event, HeadersReceived) and dict(event.headers)[b":status"] != b"200":
                self.answered.set_exception(RuntimeError(f"not served: {event.headers}"))
            if isinstance(event, HeadersReceived | DataReceived) and event.stream_ended:
                self.answered.set_result(None)

    async def ask(self):
        fields = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", HOST.encode()), (b":path", b"/1k")]
        self.http.send_headers(self._quic.get_next_available_stream_id(), fields, end_stream=True)
        self.transmit()
        await asyncio.wait_for(self.answered, 30)

    def stay(self):
        self._quic.send_ping(0)
        self.transmit()
        asyncio.get_running_loop().call_later(PING, self.stay)


def connecting(session=None, keep=None):
    settings = QuicConfiguration(alpn_protocols=["h3"], is_client=True, server_name=HOST, verify_mode=0)
    settings.session_ticket = session
    return connect("127.0.0.1", PORT, configuration=settings, create_protocol=Client, session_ticket_handler=keep)


async def full(count):
    async def some():
        for _ in range(count // WIDTH):
            async with connecting() as client:
                await client.ask()

    await asyncio.gather(*(some() for _ in range(WIDTH)))


async def resumed(count):
    async def some():
        tickets = []
        for n in range(count // WIDTH + 1):
            ticket = tickets.pop() if tickets else None
            async with connecting(ticket, tickets.append) as client:
                await client.ask()
                if n > 0 and not client._quic.tls.session_resumed:
                    sys.exit("a session was not taken up again")
                while not tickets:
                    await asyncio.sleep(0)

    await asyncio.gather(*(some() for _ in range(WIDTH)))


async def idle(count):
    held = []

    async def some(count):
        for _ in range(count):
            opened = connecting()
            client = await opened.__aenter__()
            held.append(opened)
            await client.ask()
            client.stay()

    for count in (200, count):
        await asyncio.gather(*(some(count // WIDTH) for _ in range(WIDTH)))
        await pause()


async def pause():
    print("done", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)


async def main():
    if KIND == "idle":
        return await idle(COUNT)
    run = {"full": full, "resumed": resumed}[KIND]
    await run(WIDTH * 4)
    await pause()
    await run(COUNT)
    await pause()


asyncio.run(main())
