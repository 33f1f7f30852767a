"""The floor for a main server and a back end: forward bytes from TCP to UDP and back, unparsed and without a tag.

python3 dormitory_floor.py back
python3 dormitory_floor.py front PORT_OF_BACK
"""

import socket
import sys
import threading

RECEIVE_BYTES = 1 << 16


def back() -> None:
    """Answer each datagram with itself."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    print(f"Listening on 127.0.0.1:{sock.getsockname()[1]}", flush=True)
    while True:
        data, address = sock.recvfrom(RECEIVE_BYTES)
        sock.sendto(data, address)


def front(back_port: int) -> None:
    """Accept clients; serve each with a thread and a UDP socket."""
    listener = socket.create_server(("127.0.0.1", 0))
    print(f"Listening on 127.0.0.1:{listener.getsockname()[1]}", flush=True)
    while True:
        client, _ = listener.accept()
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=relay, args=(client, back_port), daemon=True).start()


def relay(client: socket.socket, back_port: int) -> None:
    """Forward what the client sends to the back end, and the back end's answers to the client."""
    with client, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        while data := client.recv(RECEIVE_BYTES):
            sock.sendto(data, ("127.0.0.1", back_port))
            client.sendall(sock.recv(RECEIVE_BYTES))


if __name__ == "__main__":
    if sys.argv[1:] == ["back"]:
        back()
    elif sys.argv[1:2] == ["front"] and len(sys.argv) == 3:
        front(int(sys.argv[2]))
    else:
        sys.exit(__doc__)
