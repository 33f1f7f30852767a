"""The same two servers on asyncio, as a peer to compare with: streams in front, a datagram protocol behind.

    python3 dormitory_asyncio.py back
    python3 dormitory_asyncio.py front PORT_OF_BACK

Both write a status line for each request, as it comes, even into a file. The front server answers every line with what
the back end says about it; it checks no tag and repeats no request, and a lost datagram would leave its client waiting.
"""

import asyncio
import io
import itertools
import sys

ID_BYTES = 8


class BackEndProtocol(asyncio.DatagramProtocol):
    """Answer how many rooms are left."""

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        """Keep the transport."""
        self._transport = transport

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        """Answer a request under its id."""
        print(f"Back end received {data[ID_BYTES:].decode()}")
        self._transport.sendto(data[:ID_BYTES] + b"AVAILABLE 9999", address)


class FrontProtocol(asyncio.DatagramProtocol):
    """Ask the back end; a future waits for each answer."""

    def __init__(self) -> None:
        self._ids = itertools.count()
        self._answers: dict[bytes, asyncio.Future[bytes]] = {}

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        """Keep the transport."""
        self._transport = transport

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        """Hand an answer to the coroutine that waits for it."""
        self._answers.pop(data[:ID_BYTES]).set_result(data[ID_BYTES:])

    async def ask(self, request: bytes) -> bytes:
        """Return the answer to a request."""
        request_id = next(self._ids).to_bytes(ID_BYTES, "big")
        answer = self._answers[request_id] = asyncio.get_running_loop().create_future()
        self._transport.sendto(request_id + request)
        result: bytes = await answer
        return result


async def back() -> None:
    """Serve as a back end."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(BackEndProtocol, local_addr=("127.0.0.1", 0))
    print(f"Listening on 127.0.0.1:{transport.get_extra_info('sockname')[1]}", flush=True)
    await asyncio.Event().wait()


async def front(back_port: int) -> None:
    """Serve clients."""
    loop = asyncio.get_running_loop()
    _, back_end = await loop.create_datagram_endpoint(FrontProtocol, remote_addr=("127.0.0.1", back_port))

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            print(f"Client: request received: {line.decode().rstrip()}")
            writer.write(await back_end.ask(line.rstrip()) + b"\n")
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(converse, "127.0.0.1", 0)
    print(f"Listening on 127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    assert isinstance(sys.stdout, io.TextIOWrapper)
    sys.stdout.reconfigure(line_buffering=True, write_through=False)
    match sys.argv[1:]:
        case ["back"]:
            asyncio.run(back())
        case ["front", port]:
            asyncio.run(front(int(port)))
        case _:
            sys.exit(__doc__)
