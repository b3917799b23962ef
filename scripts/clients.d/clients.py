"""What Python's WebSocket and HTTP clients see of a node's last word. See scripts/clients."""

import asyncio
import http.client
import json
import sys

import websocket
import websockets

NODE = sys.argv[1]
LIVE = f"ws://{NODE}/v1/events/e/live"
POST = json.dumps({"type": "post", "text": "x"})
TIMES = 5
failures = []


def expect(what, seen, wanted):
    if seen != wanted:
        failures.append(f"{what}: {seen}, not {wanted}")


# What is sent, and the code that must come back.
CASES = [
    ("a message of 20 KB", ["x" * 20_000], 1009),
    ("a message of 3 MB", ["x" * 3_000_000], 1009),
    ("a binary message and 30 posts", [b"x"] + [POST] * 30, 1003),
]


def with_websocket_client(messages):
    viewer = websocket.create_connection(LIVE, timeout=10)
    try:
        for message in messages:
            if isinstance(message, bytes):
                viewer.send_binary(message)
            else:
                viewer.send(message)
        while True:
            opcode, data = viewer.recv_data(control_frame=True)
            if opcode == websocket.ABNF.OPCODE_CLOSE:
                return int.from_bytes(data[:2], "big")
    except Exception as error:  # Whatever it is, it is what its user sees.
        return repr(error)
    finally:
        viewer.close()


async def with_websockets(messages):
    viewer = await websockets.connect(LIVE, max_size=None)
    try:
        for message in messages:
            await viewer.send(message)
        while True:
            await viewer.recv()
    except websockets.ConnectionClosed as closed:
        return closed.rcvd.code if closed.rcvd else repr(closed)
    except Exception as error:
        return repr(error)
    finally:
        await viewer.close()


def refused(headers=(), body=None, path="/v1/events/e/live", method="GET"):
    """The status of a request that the client sends whole before it reads."""
    connection = http.client.HTTPConnection(NODE, timeout=10)
    try:
        connection.putrequest(method, path)
        for name, value in headers:
            connection.putheader(name, value)
        connection.endheaders()
        if body is not None:
            connection.send(body)
        answer = connection.getresponse()
        length = len(answer.read())
        expect(f"{method} {path}: Content-Length", answer.getheader("Content-Length"), str(length))
        return answer.status
    except Exception as error:
        return repr(error)
    finally:
        connection.close()


def late():
    """408: a head that stops in the middle."""
    connection = http.client.HTTPConnection(NODE, timeout=10)
    try:
        connection.connect()
        connection.sock.sendall(b"GET /v1/events/e/live HTTP/1.1\r\nHost: t\r\nX: ")
        answer = http.client.HTTPResponse(connection.sock)
        answer.begin()
        return answer.status
    except Exception as error:
        return repr(error)
    finally:
        connection.close()


def crowded():
    """503: all places for plain HTTP are taken, and a body is on its way."""
    holders = []
    try:
        for _ in range(2):
            holder = http.client.HTTPConnection(NODE, timeout=10)
            holder.putrequest("POST", "/v1/events/e/comments")
            holder.putheader("Content-Length", "99")
            holder.endheaders()
            holders.append(holder)
        seen = None
        for _ in range(50):
            seen = refused([("Content-Length", "200000")], b"x" * 200_000, "/v1/events/e/comments", "POST")
            if seen == 503:
                break
        return seen
    finally:
        for holder in holders:
            holder.close()


for _ in range(TIMES):
    for what, messages, code in CASES:
        expect(f"websocket-client, {what}", with_websocket_client(messages), code)
        expect(f"websockets, {what}", asyncio.run(with_websockets(messages)), code)
    # http.client sends a head in one go; it is over the limit by far.
    expect("a head of 60 KB", refused([("X", "y" * 60_000)]), 431)
    bad = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Version", "13")]
    expect("an upgrade without a key, and a body", refused(bad, b"z" * 300_000), 400)
    long = [("Content-Length", "3000000")]
    expect("a body of 3 MB", refused(long, b"x" * 3_000_000, "/v1/events/e/comments", "POST"), 413)
    expect("a body that is no post", refused([("Content-Length", "100000")], b"x" * 100_000, "/v1/events/e/comments", "POST"), 400)
expect("a head that stops", late(), 408)
expect("no place for HTTP", crowded(), 503)

if failures:
    print("\n".join(failures))
    sys.exit(f"clients: {len(failures)} times a Python client did not see the last word")
print("clients: Python's websocket-client, websockets and http.client each saw the last word")
