"""A model server that misbehaves on request: ``backend.py PORT NAME``; POST /mode/MODE says how. Only the standard library.

Run as a process of its own, so that it can be killed and stopped.
"""

from __future__ import annotations

import asyncio
import random
import sys

MODES = ("ok", "500", "half", "reset", "empty", "garbage", "hang", "slow", "unready", "status")


class Server(asyncio.Protocol):
    mode = "ok"
    name = "?"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport, self.data = transport, b""

    def data_received(self, data: bytes) -> None:
        self.data += data
        while (request := self._next()) is not None:
            self._answer(*request)

    def _next(self) -> tuple[str, str] | None:
        head, found, rest = self.data.partition(b"\r\n\r\n")
        if not found:
            return None
        first, *headers = head.decode("latin-1").split("\r\n")
        fields = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in headers)}
        length = int(fields.get("content-length", 0))
        if "transfer-encoding" in fields:
            if b"0\r\n\r\n" not in rest:
                return None
            length = rest.index(b"0\r\n\r\n") + 5
        if len(rest) < length:
            return None
        self.data = rest[length:]
        method, path, _ = first.split(" ", 2)
        return method, path

    def _answer(self, method: str, path: str) -> None:
        if path.startswith("/mode/"):
            Server.mode = path.rpartition("/")[2]
            return self._say(200)
        if path == "/v2/health/ready":
            return self._say(503 if Server.mode == "unready" else 200)
        mode, _, argument = Server.mode.partition("-")
        if mode == "half":
            mode = random.choice(["ok", "500"])
        if mode == "500":
            return self._say(500)
        if mode == "status":
            return self._say(int(argument))
        if mode == "reset":
            return self.transport.abort()
        if mode == "empty":
            return self.transport.close()
        if mode == "garbage":
            self.transport.write(b"\x00\xff this is no HTTP \r\n\r\n" * 20)
            return self.transport.close()
        if mode == "hang":
            return None
        if mode == "slow":
            asyncio.get_running_loop().call_later(int(argument) / 1000, self._say, 200)
            return None
        return self._say(200)

    def _say(self, status: int) -> None:
        body = self.name.encode()
        self.transport.write(b"HTTP/1.1 %d x\r\ncontent-length: %d\r\n\r\n%s" % (status, len(body), body))


async def main(port: int, name: str) -> None:
    Server.name = name
    server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
